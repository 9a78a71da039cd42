//! Compares the documents of the API, `host/openapi.json` and `host/API.md`, with the code.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ROUTES;
use super::tokens::Scope;
use crate::edge::http::problem::Reason;

const DOCUMENT: &str = include_str!("../../../openapi.json");
const PAGE: &str = include_str!("../../../API.md");

/// Reasons that only the admin listener gives.
const OF_ADMIN: [Reason; 6] = [
    Reason::NoSuchSlot,
    Reason::NoCluster,
    Reason::NoSuchNode,
    Reason::NotNow,
    Reason::ComponentRefused,
    Reason::NoToken,
];

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// The members of an object.
fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value))
}

/// The operations of the document: method, path and description.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    members(&document["paths"])
        .flat_map(|(path, item)| members(item).map(move |(method, operation)| (method, path, operation)))
}

/// Adds the values that schemas inside `value` allow for a property.
fn allowed<'a>(value: &'a Value, property: &str, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| allowed(value, property, found)),
        Value::Object(object) => {
            for (name, value) in object {
                if name == property {
                    let values = value["enum"].as_array().into_iter().flatten().chain(value.get("const"));
                    found.extend(values.filter_map(Value::as_str));
                }
                allowed(value, property, found);
            }
        }
        _ => {}
    }
}

/// The reason with this word.
fn reason(word: &str) -> Reason {
    let found = Reason::ALL.iter().find(|reason| reason.word() == word);
    *found.unwrap_or_else(|| panic!("the code has no reason {word}"))
}

/// The words of all reasons of the API. A defect of the gateway is not in the document.
fn words() -> BTreeSet<&'static str> {
    let of_api = Reason::ALL.iter().filter(|reason| !OF_ADMIN.contains(reason) && **reason != Reason::Internal);
    of_api.map(|reason| reason.word()).collect()
}

#[test]
fn the_document_has_the_routes_of_the_code() {
    let document = document();
    let documented: BTreeSet<_> = operations(&document).map(|(method, path, _)| (method, path)).collect();
    assert_eq!(documented, ROUTES.iter().copied().collect());
    assert_eq!(documented.len(), ROUTES.len(), "a route is there twice");
}

#[test]
fn the_document_has_the_reasons_of_the_code() {
    let document = document();
    let mut documented = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        for (status, response) in members(&operation["responses"]) {
            let pointer = response["$ref"].as_str().and_then(|pointer| pointer.strip_prefix('#'));
            let response = pointer.map_or(response, |pointer| document.pointer(pointer).unwrap());
            let mut found = BTreeSet::new();
            allowed(&response["content"], "reason", &mut found);
            for word in found {
                assert_eq!(reason(word).status().as_str(), status, "{method} {path}: {word}");
                let description = response["description"].as_str().unwrap();
                assert!(description.contains(&format!("`{word}`")), "{method} {path}: {status} explains no {word}");
                documented.insert(word);
            }
        }
    }
    assert_eq!(documented, words());
}

#[test]
fn the_document_has_the_reasons_of_items() {
    let result = &document()["components"]["schemas"]["Result"];
    let mut found = BTreeSet::new();
    allowed(result, "reason", &mut found);
    let statuses = result["allOf"][0]["properties"]["status"]["enum"].as_array().unwrap().iter();
    let documented: BTreeSet<_> = statuses.map(ToString::to_string).collect();
    let of_reasons = found.iter().map(|word| reason(word).status().as_str().to_owned());
    assert_eq!(documented, of_reasons.chain(["200".to_owned()]).collect());
}

#[test]
fn the_page_has_all_reasons_with_their_statuses() {
    let mut found = BTreeSet::from([Reason::Internal.word()]);
    for row in PAGE.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, statuses, words, _, _, _] = cells[..] else { continue };
        if !statuses.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        for word in words.split('`').skip(1).step_by(2) {
            assert!(statuses.contains(reason(word).status().as_str()), "{row}");
            found.insert(word);
        }
    }
    assert_eq!(found, words().into_iter().chain([Reason::Internal.word()]).collect());
}

#[test]
fn both_have_all_scopes() {
    let document = document();
    let bearer = document["components"]["securitySchemes"]["bearer"]["description"].as_str().unwrap();
    for (word, _) in Scope::ALL {
        assert!(bearer.contains(&format!("`{word}`")), "{word}");
        assert!(PAGE.lines().any(|row| row.starts_with(&format!("| `{word}` | "))), "{word}");
    }
    for (method, path, operation) in operations(&document) {
        for (_, scopes) in operation["security"].as_array().unwrap().iter().flat_map(members) {
            let is_scope = |scope: &Value| Scope::ALL.iter().any(|(word, _)| scope == word);
            assert!(scopes.as_array().unwrap().iter().all(is_scope), "{method} {path}: {scopes}");
        }
    }
}
