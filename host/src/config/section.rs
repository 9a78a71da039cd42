//! A table of the configuration file, and the macro that makes one from a list of keys.

use toml::de::DeValue;

use super::error::Wrong;

/// A table of the configuration file.
pub(super) trait Section {
    /// Sets a key to a value. Returns `None` if there is no such key.
    fn set(&mut self, key: &str, value: &DeValue<'_>) -> Option<Result<(), Wrong>>;

    /// Returns the table's keys with their current values, in the order of `keys.rs`.
    fn rows(&self) -> Vec<Row>;

    /// Returns the table with this name below this table.
    fn section(&mut self, name: &str) -> Option<&mut dyn Section>;

    /// Returns the tables below this table, except `authenticator` and `router`, which the reader handles itself.
    fn sections(&self) -> Vec<(&'static str, &dyn Section)>;

    /// Returns the list of tables with this name below this table.
    fn list(&mut self, name: &str) -> Option<&mut dyn Tables>;

    /// Returns the lists of tables below this table, except `authenticator` and `api.token`, which the reader handles
    /// itself.
    fn lists(&self) -> Vec<(&'static str, &dyn Tables)>;
}

/// A list of tables, each headed `[[path.name]]`.
pub(super) trait Tables {
    /// Adds a table with default values. Returns `None` if the list is full.
    fn add(&mut self) -> Option<&mut dyn Section>;

    /// Returns the tables.
    fn tables(&self) -> Vec<&dyn Section>;

    /// Returns a table with default values.
    fn default(&self) -> Box<dyn Section>;
}

/// The most tables of one list.
pub(super) const MAX_TABLES: usize = 64;

impl<T: Section + Default + 'static> Tables for Vec<T> {
    fn add(&mut self) -> Option<&mut dyn Section> {
        if self.len() >= MAX_TABLES {
            return None;
        }
        self.push(T::default());
        self.last_mut().map(|table| table as &mut dyn Section)
    }

    fn tables(&self) -> Vec<&dyn Section> {
        self.iter().map(|table| table as &dyn Section).collect()
    }

    fn default(&self) -> Box<dyn Section> {
        Box::new(T::default())
    }
}

/// One key with its value and description.
pub(super) struct Row {
    pub key: &'static str,
    pub value: toml::Value,
    /// Words that follow "must be".
    pub allowed: String,
    pub meaning: &'static str,
}

/// `keys! { Type { field: kind, = default, "meaning"; … } … }` implements `Default` and [`Section`] for each type. A
/// key has the name of its field, unless `field "key"` gives another name. `sections` are the tables below it, `lists`
/// the lists of tables. The keys of `flat` are in the same table. Fields in `rest` only get their default here: the
/// reader handles them itself.
macro_rules! keys {
    ($($type:ident {
        $($field:ident $($key:literal)?: $kind:expr, = $default:expr, $meaning:literal;)*
        $([sections: $($section:ident),+])?
        $([lists: $($list:ident $list_name:literal),+])?
        $([flat: $flat:ident = $flat_default:expr])?
        $([rest: $($rest:ident = $rest_default:expr),+])?
    })*) => { $(
        impl Default for $type {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($($section: Default::default(),)+)?
                    $($($list: Vec::new(),)+)?
                    $($flat: $flat_default,)?
                    $($($rest: $rest_default,)+)?
                }
            }
        }

        impl Section for $type {
            fn set(&mut self, key: &str, value: &DeValue<'_>) -> Option<Result<(), Wrong>> {
                match key {
                    $(keys!(@name $field $($key)?) => Some($kind.parse(value).map(|it| self.$field = it)),)*
                    _ => None$(.or_else(|| self.$flat.set(key, value)))?,
                }
            }

            fn rows(&self) -> Vec<Row> {
                [
                    $(self.$flat.rows(),)?
                    vec![$(Row {
                        key: keys!(@name $field $($key)?),
                        value: $kind.show(&self.$field),
                        allowed: $kind.allowed(),
                        meaning: $meaning,
                    }),*],
                ].into_iter().flatten().collect()
            }

            fn section(&mut self, name: &str) -> Option<&mut dyn Section> {
                match name {
                    $($(stringify!($section) => Some(&mut self.$section),)+)?
                    _ => None$(.or_else(|| self.$flat.section(name)))?,
                }
            }

            fn sections(&self) -> Vec<(&'static str, &dyn Section)> {
                [
                    $(self.$flat.sections(),)?
                    vec![$($((stringify!($section), &self.$section as &dyn Section)),+)?],
                ].into_iter().flatten().collect()
            }

            fn list(&mut self, name: &str) -> Option<&mut dyn Tables> {
                match name {
                    $($($list_name => Some(&mut self.$list),)+)?
                    _ => None$(.or_else(|| self.$flat.list(name)))?,
                }
            }

            fn lists(&self) -> Vec<(&'static str, &dyn Tables)> {
                [
                    $(self.$flat.lists(),)?
                    vec![$($(($list_name, &self.$list as &dyn Tables)),+)?],
                ].into_iter().flatten().collect()
            }
        }
    )* };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };
}

pub(super) use keys;
