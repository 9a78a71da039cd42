//! The files of the dashboard, which are in the binary.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use include_dir::{Dir, File, include_dir};
use sha2::{Digest as _, Sha256};

use super::shared::{PAGE, Shared};
use crate::edge::http::problem::Problem;
use crate::edge::http::query::no_query;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/dashboard");

/// The tags of the files, by their paths. They are made once: anybody may ask for the files.
static TAGS: LazyLock<HashMap<&Path, String>> = LazyLock::new(|| {
    let mut files = Vec::new();
    let mut folders = vec![&FILES];
    while let Some(folder) = folders.pop() {
        files.extend(folder.files());
        folders.extend(folder.dirs());
    }
    let tag = |file: &File<'_>| format!("\"{}\"", hex::encode(Sha256::digest(file.contents())));
    files.into_iter().map(|file| (file.path(), tag(file))).collect()
});

/// The file for [`PAGE`].
const INDEX: &str = "index.html";

/// The types of files that are served. Others are for developers.
const TYPES: [(&str, &str); 5] = [
    (".html", "text/html; charset=utf-8"),
    (".js", "text/javascript; charset=utf-8"),
    (".css", "text/css; charset=utf-8"),
    (".svg", "image/svg+xml"),
    (".txt", "text/plain; charset=utf-8"),
];

/// What a page may do: load its own scripts, styles and images, and ask this listener. It makes no HTML of text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The headers of each answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // The browser asks each time whether the file is still the same.
    (CACHE_CONTROL, "no-cache"),
];

/// Shows a file.
pub(super) async fn show(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let name = if uri.path() == PAGE { INDEX } else { uri.path().trim_start_matches('/') };
    let found = FILES.get_file(name).zip(TYPES.iter().find(|(end, _)| name.ends_with(end)));
    let (file, (_, kind)) = found.filter(|_| shared.has_dashboard).ok_or_else(Problem::no_such_path)?;
    no_query(&uri)?;
    let tag = TAGS.get(file.path()).ok_or_else(Problem::no_such_path)?.as_str();
    let is_known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|known| known.to_str().ok());
    let is_known = is_known.flat_map(|known| known.split(',')).any(|known| known.trim() == tag);
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let tag = [(ETAG, tag)];
    Ok(match is_known {
        true => (StatusCode::NOT_MODIFIED, headers, tag).into_response(),
        false => (headers, tag, [(CONTENT_TYPE, *kind)], file.contents()).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_there_with_the_files_that_it_names() {
        let page = FILES.get_file(INDEX).and_then(|file| file.contents_utf8()).expect("a page");
        let named: Vec<_> = page.split('"').filter_map(|text| text.strip_prefix('/')).collect();
        assert!(!named.is_empty());
        for name in named {
            let is_served = TYPES.iter().any(|(end, _)| name.ends_with(end)) && name.starts_with("assets/");
            assert!(is_served && FILES.get_file(name).is_some(), "{name}");
        }
    }
}
