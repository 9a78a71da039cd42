//! Reads the query of a request.

use axum::extract::{self, FromRequestParts};
use axum::http::Uri;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::problem::{Problem, shown};

/// The parameters that a path takes. Each of them is optional.
pub(in crate::edge) trait Parameters: DeserializeOwned {
    /// The parameters and their values, for an error message.
    const ALLOWED: &'static str;
}

/// The parameters in a query (RFC 3986 §3.4). A `+` means a plus, because uids may be telephone numbers; a space is
/// `%20`. Forms of web pages use `+` for a space, but this listener serves no web pages.
pub(in crate::edge) struct Query<T>(pub(in crate::edge) T);

impl<S: Sync, T: Parameters> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The parser below would replace wrong UTF-8, and so name another uid.
        pairs(&parts.uri)?;
        let query = parts.uri.query().unwrap_or_default().replace('+', "%2B");
        let wrong = || Problem::bad(problem::<T>(&query));
        parse(&query).map(Self).ok_or_else(wrong)
    }
}

/// Returns the parameters of a query in their order, decoded. For paths that take a parameter several times.
pub(in crate::edge) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from);
    let parameters = uri.query().unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
    let pair = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let not_utf8 = |_| Problem::bad(format_args!("the query parameter {} is not UTF-8", shown(name)));
        Ok((decode(name).map_err(not_utf8)?, decode(value).map_err(not_utf8)?))
    };
    parameters.map(pair).collect()
}

/// Checks that a request has no query, for a path that takes none.
pub(in crate::edge) fn no_query(uri: &Uri) -> Result<(), Problem> {
    if uri.query().is_some() { Err(Problem::bad("this path takes no query")) } else { Ok(()) }
}

fn parse<T: Parameters>(query: &str) -> Option<T> {
    let uri: Uri = format!("/?{query}").parse().ok()?;
    extract::Query::try_from_uri(&uri).ok().map(|extract::Query(parameters)| parameters)
}

/// Returns what is wrong with a query: the first parameter that is wrong even alone, or else the whole query.
fn problem<T: Parameters>(query: &str) -> String {
    match query.split('&').find(|parameter| parse::<T>(parameter).is_none()) {
        Some(parameter) => {
            let name = shown(&parameter.split('=').next().unwrap_or_default().replace("%2B", "+"));
            format!("wrong query parameter {name}: this path takes {}", T::ALLOWED)
        }
        None => "the query is too long, or has a parameter twice".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        uid: Option<String>,
        #[serde(default)]
        limit: u64,
    }

    impl Parameters for Example {
        const ALLOWED: &'static str = "uid=TEXT and limit=NUMBER";
    }

    #[test]
    fn the_wrong_parameter_is_named() {
        let right: Example = parse("uid=%2B49%20x&limit=3").expect("a query");
        assert_eq!((right.uid.as_deref(), right.limit), (Some("+49 x"), 3));
        assert!(parse::<Example>("").is_some());
        for (query, expected) in [
            ("uid=a&limit=x", "wrong query parameter limit: this path takes uid=TEXT and limit=NUMBER"),
            ("user=a&limit=1", "wrong query parameter user: this path takes uid=TEXT and limit=NUMBER"),
            ("uid=a&uid=b", "the query is too long, or has a parameter twice"),
        ] {
            assert!(parse::<Example>(query).is_none(), "{query}");
            assert_eq!(problem::<Example>(query), expected, "{query}");
        }
    }
}
