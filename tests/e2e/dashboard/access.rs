//! Who may do what.

use std::collections::BTreeSet;

use hotgate_tests::{Admin, Gateway, eventually};
use serde_json::json;

use super::{Stream, read_token, session, trade};

/// Who needs what.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Needs {
    /// No token at all.
    Nothing,
    /// A code or token in the body.
    Key,
    /// Any token.
    Token,
    /// The token of a session.
    Session,
    /// A token that does not only read.
    All,
    /// The admin token of the file.
    File,
}

/// Every route, what it needs, and the status for those who may ask. A new route needs a row here.
const ROUTES: [(&str, Needs, u16); 34] = [
    ("GET /", Needs::Nothing, 200),
    ("GET /assets/{*file}", Needs::Nothing, 404),
    ("GET /healthz", Needs::Nothing, 200),
    ("GET /readyz", Needs::Nothing, 200),
    ("POST /session", Needs::Key, 401),
    ("GET /session", Needs::Token, 200),
    ("DELETE /session", Needs::Session, 200),
    ("POST /codes", Needs::File, 200),
    ("GET /events", Needs::Token, 200),
    ("GET /log", Needs::Token, 200),
    ("GET /trace", Needs::Token, 400),
    ("GET /log-level", Needs::Token, 200),
    ("PUT /log-level", Needs::All, 400),
    ("POST /try", Needs::All, 200),
    ("POST /try/push", Needs::All, 200),
    ("POST /try/{client}", Needs::All, 400),
    ("DELETE /try/{client}", Needs::All, 404),
    ("GET /metrics", Needs::Token, 200),
    ("GET /status", Needs::Token, 200),
    ("GET /cluster", Needs::Token, 404),
    ("GET /plugins", Needs::Token, 200),
    ("PUT /plugins/{slot}", Needs::All, 409),
    ("POST /plugins/{slot}/rollback", Needs::All, 409),
    ("POST /plugins/{slot}/promote", Needs::All, 409),
    ("POST /plugins/{slot}/reload", Needs::All, 200),
    ("GET /drain", Needs::Token, 200),
    ("POST /drain", Needs::All, 200),
    ("DELETE /drain", Needs::All, 200),
    ("GET /connections", Needs::Token, 200),
    ("DELETE /connections", Needs::All, 400),
    ("DELETE /connections/{id}", Needs::All, 404),
    ("GET /nothing", Needs::Token, 404),
    ("POST /", Needs::All, 405),
    ("PUT /assets/x", Needs::All, 405),
];

/// The routes in the code of the admin listener.
fn routes() -> BTreeSet<String> {
    let code = include_str!("../../../host/src/edge/admin/mod.rs");
    let constants = [("HEALTH", "/healthz"), ("READINESS", "/readyz"), ("PAGE", "/"), ("SESSION", "/session")];
    let mut routes = BTreeSet::new();
    for route in code.split(".route(").skip(1) {
        let (path, methods) = route.split_once(',').expect("a path and its methods");
        let constant = constants.iter().find(|(name, _)| *name == path).map(|(_, path)| *path);
        let path = constant.unwrap_or_else(|| path.trim().trim_matches('"'));
        let methods = methods.split(".fallback").next().unwrap_or_default();
        for method in ["get", "post", "put", "delete", "patch", "any"] {
            let begins = |at: usize| at == 0 || matches!(methods.as_bytes()[at - 1], b' ' | b'.');
            if methods.match_indices(&format!("{method}(")).any(|(at, _)| begins(at)) {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    routes
}

#[tokio::test]
async fn who_may_do_what() {
    let listed: BTreeSet<_> = ROUTES.iter().map(|(line, ..)| (*line).to_owned()).collect();
    let without: Vec<_> = routes().into_iter().filter(|route| !listed.contains(route)).collect();
    assert!(without.is_empty() && routes().len() > 20, "no row in ROUTES: {without:?}");

    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    eventually("it is ready", async || admin.ask("GET /readyz").await.status == 200).await;
    let reader = read_token(&gateway, &admin).await;
    let ended = session(&admin, "").await;
    assert_eq!(ended.ask("DELETE /session").await.status, 200);
    let used = admin.json("POST /codes").await["code"].clone();
    assert_eq!(trade(&admin, &json!({ "code": used })).await.status, 200);
    let own_origin = format!("http://{}", admin.address);
    let wrong = Admin { token: "0123456789abcdef0123456789abcdef".to_owned(), ..admin.clone() };
    let code =
        Admin { token: admin.json("POST /codes").await["code"].as_str().expect("a code").into(), ..admin.clone() };

    for (route, needs, admitted) in ROUTES {
        use Needs::{All, File, Key, Nothing, Session, Token};
        let line = ["{slot}=router", "{id}=1", "{client}=99999", "{*file}=nothing.js"].iter().fold(
            route.to_owned(),
            |line, pair| {
                let (name, value) = pair.split_once('=').expect("a pair");
                line.replace(name, value)
            },
        );
        let body = if needs == Key { json!({ "code": used }).to_string() } else { String::new() };
        let (all, only_reads) = (session(&admin, "").await, session(&admin, "?read-only=true").await);
        // Of who is known, who may do it.
        let open = |statuses: [(bool, u16); 5]| statuses.iter().find(|(is, _)| *is).expect("one").1;
        let nobody = if matches!(needs, Nothing | Key) { admitted } else { 401 };
        let read = open([
            (matches!(needs, Nothing | Key | Token), admitted),
            (needs == Session, 400),
            (matches!(needs, All | File), 403),
            (false, 0),
            (false, 0),
        ]);
        let file = if needs == Session { 400 } else { admitted };
        let of_session = if needs == File { 403 } else { admitted };
        let of_reader = if matches!(needs, All | File) { 403 } else { admitted };
        let navigated = if needs == Nothing { admitted } else { 403 };
        let request = |admin: &Admin| admin.request(&line);
        let mut table = vec![
            ("no token", request(&admin).without("Authorization"), nobody),
            ("a wrong token", request(&wrong), nobody),
            ("a code as a token", request(&code), nobody),
            ("an ended session", request(&ended), nobody),
            ("the read token", request(&reader), read),
            ("a read-only session", request(&only_reads), of_reader),
            ("a session", request(&all), of_session),
            ("the admin token", request(&admin), file),
        ];
        for (header, value) in [
            ("Origin", "http://attacker.example"),
            ("Origin", "null"),
            ("Origin", &format!("https://{}", admin.address)),
            ("Origin", &format!("{own_origin}0")),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Sec-Fetch-Site", ""),
        ] {
            table.push(("a foreign page", request(&admin).and(header, value), 403));
        }
        table.push(("two origins", request(&admin).and("Origin", &own_origin).and("Origin", &own_origin), 403));
        table.push(("the user's navigation", request(&admin).and("Sec-Fetch-Site", "none"), navigated));
        let own = request(&admin).and("Origin", &own_origin).and("Sec-Fetch-Site", "same-origin");
        table.push(("its own page", own, file));
        table.push(("another host", request(&admin).header("Host", "attacker.example"), 421));
        for (who, request, expected) in table {
            let status = Stream::send(&admin, request.clone(), &body).await.status().await;
            assert_eq!(status, expected, "{line}: {who}: {request:?}");
        }
    }
}
