//! Bounds what a module does before its first function runs. The engine makes one function of this work, in a straight
//! line: it fills tables and memories and computes globals. This function cannot be interrupted, so its length is
//! bounded.

use anyhow::ensure;
use wasmparser::{
    ConstExpr, DataKind, DataSectionReader, Element, ElementItems, ElementKind, ElementSectionReader,
    GlobalSectionReader, ImportSectionReader, Operator, TableInit, TableSectionReader, TypeRef,
};

use crate::plugin::engine;

/// Most steps of that function; a step is a call out of its code. This many take two milliseconds. Python's largest
/// library takes 5,000 steps, and the memory of a JavaScript runtime that was snapshotted has 10,000 data segments.
const STEPS: usize = 20_000;

/// Most bytes of all constant expressions, which become instructions one by one.
const CONSTANTS: usize = 1 << 20;

/// Most items of passive element segments. Each item takes 16 bytes in each instance. Compilers of languages make no
/// such items.
const PASSIVE_ITEMS: usize = 1000;

/// Counts the work of one module.
#[derive(Default)]
pub(crate) struct Startup {
    steps: usize,
    constants: usize,
    passive_items: usize,
    imported_tables: usize,
    /// For each table of the module's own: whether it begins with nulls.
    empty_tables: Vec<bool>,
    /// Whether an active segment was found that the engine does not lay out when it compiles. The engine then lays out
    /// no segment that follows.
    dynamic: bool,
}

impl Startup {
    /// Counts imported tables. They have lower numbers than the module's own tables.
    pub(crate) fn imports(&mut self, imports: ImportSectionReader<'_>) {
        let tables = imports.into_imports().map_while(Result::ok);
        self.imported_tables += tables.filter(|import| matches!(import.ty, TypeRef::Table(_))).count();
    }

    /// Counts the tables that are filled with anything but null.
    ///
    /// # Errors
    /// If the module does too much.
    pub(crate) fn tables(&mut self, tables: TableSectionReader<'_>) -> anyhow::Result<()> {
        for table in tables.into_iter().map_while(Result::ok) {
            if let TableInit::Expr(initial) = &table.init {
                self.steps += 1;
                self.constant(initial);
            }
            self.empty_tables.push(matches!(table.init, TableInit::RefNull));
        }
        // The sum over all modules is checked after compiling. A single module with more tables is refused here,
        // because the engine would refuse it with a less clear message.
        let (tables, limit) = (self.empty_tables.len(), engine::TABLES as usize);
        ensure!(tables <= limit, "its core modules have {tables} tables, the limit is {limit}");
        self.check()
    }

    /// Counts the globals that refer to functions, and the bytes of all globals' constant expressions.
    ///
    /// # Errors
    /// If the module does too much.
    pub(crate) fn globals(&mut self, globals: GlobalSectionReader<'_>) -> anyhow::Result<()> {
        for global in globals.into_iter().map_while(Result::ok) {
            let mut operators = global.init_expr.get_operators_reader().into_iter().map_while(Result::ok);
            self.steps += usize::from(operators.any(|operator| matches!(operator, Operator::RefFunc { .. })));
            self.constant(&global.init_expr);
        }
        self.check()
    }

    /// Counts element segments and their items, except the segments that the engine lays out when it compiles.
    ///
    /// # Errors
    /// If the module does too much.
    pub(crate) fn elements(&mut self, elements: ElementSectionReader<'_>) -> anyhow::Result<()> {
        for element in elements.into_iter().map_while(Result::ok) {
            let items = match &element.items {
                ElementItems::Functions(functions) => functions.count(),
                ElementItems::Expressions(_, expressions) => {
                    self.constants += expressions.range().len();
                    expressions.count()
                }
            };
            match &element.kind {
                ElementKind::Declared => continue,
                ElementKind::Passive => self.passive_items += items as usize,
                ElementKind::Active { offset_expr, .. } => self.constant(offset_expr),
            }
            if self.is_laid_out(&element) {
                continue;
            }
            self.dynamic |= matches!(element.kind, ElementKind::Active { .. });
            self.steps += 1 + items as usize;
        }
        self.check()
    }

    /// Counts data segments.
    ///
    /// # Errors
    /// If the module does too much.
    pub(crate) fn data(&mut self, data: DataSectionReader<'_>) -> anyhow::Result<()> {
        for segment in data.into_iter().map_while(Result::ok) {
            if let DataKind::Active { offset_expr, .. } = &segment.kind {
                self.steps += 1;
                self.constant(offset_expr);
            }
        }
        self.check()
    }

    fn constant(&mut self, expression: &ConstExpr<'_>) {
        self.constants += expression.get_binary_reader().bytes_remaining();
    }

    /// Returns `true` if the engine lays out this segment when it compiles: plain functions at a known place in a table
    /// of the module's own that begins with nulls. All active segments before must be laid out, too.
    fn is_laid_out(&self, element: &Element<'_>) -> bool {
        let ElementKind::Active { table_index, offset_expr } = &element.kind else { return false };
        let own = (table_index.unwrap_or(0) as usize).checked_sub(self.imported_tables);
        let empty = own.and_then(|own| self.empty_tables.get(own)).is_some_and(|empty| *empty);
        let plain = matches!(element.items, ElementItems::Functions(_));
        let mut offset = offset_expr.get_operators_reader().into_iter().map_while(Result::ok);
        let known = matches!(
            (offset.next(), offset.next()),
            (Some(Operator::I32Const { .. } | Operator::I64Const { .. }), Some(Operator::End))
        );
        empty && plain && known && !self.dynamic
    }

    fn check(&self) -> anyhow::Result<()> {
        let Self { steps, constants, passive_items, .. } = self;
        ensure!(
            *steps <= STEPS,
            "one of its modules takes {steps} steps to fill its tables and memories (element segments, their items, data \
             segments), the limit is {STEPS}"
        );
        ensure!(
            *constants <= CONSTANTS,
            "one of its modules has {constants} bytes of constant expressions, the limit is {CONSTANTS}"
        );
        ensure!(
            *passive_items <= PASSIVE_ITEMS,
            "one of its modules has {passive_items} items in passive element segments, the limit is {PASSIVE_ITEMS}"
        );
        Ok(())
    }
}
