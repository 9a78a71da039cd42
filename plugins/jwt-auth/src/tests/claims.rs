use super::*;

/// Returns why a genuine token with these claims is denied.
#[track_caller]
fn denied_for(settings: &[(&str, &str)], claims: impl AsRef<[u8]>) -> String {
    denied(&with(settings), &genuine(claims))
}

fn uid(settings: &[(&str, &str)], claims: &str) -> Result<String, Denial> {
    identity(&with(settings), &genuine(claims)).map(|identity| identity.uid)
}

#[test]
fn the_session_ends_with_the_token() {
    for (settings, expected) in
        [(&[][..], 2060), (&[("JWT_LEEWAY", "0")], 2000), (&[("JWT_LEEWAY", "600"), ("JWT_EXPIRY", "optional")], 2600)]
    {
        let settings = with(settings);
        let at = |now| crate::identity(&settings, &genuine(CLAIMS), now).map(|identity| identity.expires_at);
        assert_eq!(at(NOW), Ok(Some(expected)));
        assert_eq!(at(expected - 1), Ok(Some(expected)));
        assert_eq!(at(expected), Err(Denial::Expired));
        assert_eq!(at(u64::MAX), Err(Denial::Expired));
    }
    let unlimited = identity(&with(&[("JWT_EXPIRY", "optional")]), &genuine(r#"{"sub":"u1"}"#)).unwrap();
    assert_eq!(unlimited.expires_at, None);
    assert_eq!(denied_for(&[], r#"{"sub":"u1"}"#), "4003 the token is not for here: `exp` is missing");
}

#[test]
fn a_date_is_a_number_of_seconds() {
    for exp in ["2000", "2000.9", "2e3", "20000e-1", "253402300799"] {
        assert_eq!(uid(&[], &format!(r#"{{"sub":"u1","exp":{exp}}}"#)).as_deref(), Ok("u1"), "{exp}");
    }
    for exp in
        ["\"2000\"", "null", "true", "[2000]", "{}", "-1", "1e400", "-1e400", "1767225600000", "\"inf\"", "\"NaN\""]
    {
        for settings in [&[][..], &[("JWT_EXPIRY", "optional")]] {
            let reason = denied_for(settings, format!(r#"{{"sub":"u1","exp":{exp}}}"#));
            assert_eq!(reason, "4003 the token is not for here: `exp` is not a date in seconds", "{exp}");
        }
        let reason = denied_for(&[], format!(r#"{{"sub":"u1","exp":2000,"nbf":{exp}}}"#));
        assert_eq!(reason, "4003 the token is not for here: `nbf` is not a date in seconds", "{exp}");
    }
    assert_eq!(denied_for(&[], r#"{"sub":"u1","exp":0}"#), "4004 the token has expired");
}

#[test]
fn a_token_is_not_good_before_its_time() {
    let at = |nbf: &str| uid(&[("JWT_LEEWAY", "60")], &format!(r#"{{"sub":"u1","exp":2000,"nbf":{nbf}}}"#));
    assert_eq!(at("1000").as_deref(), Ok("u1"));
    assert_eq!(at("1060").as_deref(), Ok("u1"));
    assert_eq!(at("1060.5"), Err(Denial::NotForHere("`nbf` is still to come")));
    assert_eq!(at("1061"), Err(Denial::NotForHere("`nbf` is still to come")));
}

#[test]
fn the_issuer_must_be_the_one_expected() {
    let settings = &[("JWT_ISSUER", "https://a.example/, b")];
    let of = |iss: &str| format!(r#"{{"sub":"u1","exp":2000{iss}}}"#);
    for iss in [r#","iss":"https://a.example/""#, r#","iss":"b""#, r#","iss":"\u0062""#] {
        assert_eq!(uid(settings, &of(iss)).as_deref(), Ok("u1"), "{iss}");
    }
    for iss in [r#","iss":"https://a.example""#, r#","iss":"B""#, r#","iss":"""#, r#","iss":"https://a.example/, b""#] {
        assert_eq!(denied_for(settings, of(iss)), "4003 the token is not for here: `iss` is somebody else", "{iss}");
    }
    for iss in ["", r#","iss":null"#, r#","iss":["b"]"#, r#","iss":5"#] {
        assert_eq!(denied_for(settings, of(iss)), "4003 the token is not for here: `iss` is missing", "{iss}");
    }
    assert!(uid(&[], &of(r#","iss":["whoever"]"#)).is_ok());
}

#[test]
fn the_audience_must_be_the_one_expected() {
    let settings = &[("JWT_AUDIENCE", "push,web")];
    let of = |aud: &str| format!(r#"{{"sub":"u1","exp":2000{aud}}}"#);
    for aud in [r#","aud":"push""#, r#","aud":["other","web"]"#, r#","aud":["push","push"]"#] {
        assert_eq!(uid(settings, &of(aud)).as_deref(), Ok("u1"), "{aud}");
        assert_eq!(uid(&[("JWT_AUDIENCE", "*")], &of(aud)).as_deref(), Ok("u1"), "{aud}");
        let reason = denied_for(&[], of(aud));
        assert_eq!(reason, "4003 the token is not for here: it has an `aud`, and none is expected", "{aud}");
    }
    for aud in [r#","aud":"other""#, r#","aud":[]"#, r#","aud":["*"]"#, r#","aud":"push,web""#, r#","aud":"""#] {
        assert_eq!(denied_for(settings, of(aud)), "4003 the token is not for here: `aud` is somebody else", "{aud}");
    }
    for aud in [r#","aud":null"#, r#","aud":5"#, r#","aud":{"push":1}"#, r#","aud":["push",5]"#, r#","aud":[["push"]]"#]
    {
        let reason = denied_for(settings, of(aud));
        assert_eq!(reason, "4003 the token is not for here: `aud` is not made of strings", "{aud}");
    }
    assert_eq!(denied_for(settings, of("")), "4003 the token is not for here: `aud` is missing");
    assert!(uid(&[("JWT_AUDIENCE", "*")], &of("")).is_ok() && uid(&[], &of("")).is_ok());
}

#[test]
fn the_uid_is_a_claim() {
    let claims = r#"{"sub":"u1","exp":2000,"id":7,"https://example.com/id":"u3","user":{"id":"u4"}}"#;
    for (claim, expected) in
        [("sub", "u1"), ("id", "7"), ("https://example.com/id", "u3"), ("/user/id", "u4"), ("/sub", "u1")]
    {
        assert_eq!(uid(&[("JWT_UID_CLAIM", claim)], claims).as_deref(), Ok(expected));
    }
    let long = "u".repeat(257);
    for (sub, expected) in [
        ("", "`uid` is missing"),
        (r#""sub":"","#, "`uid` is empty"),
        (r#""sub":null,"#, "`uid` is null, not a string or an integer"),
        (r#""sub":1.5,"#, "`uid` is a number with a fraction or exponent, not a string or an integer"),
        (r#""sub":["u1"],"#, "`uid` is an array, not a string or an integer"),
        (r#""sub":"\ud800","#, "`uid` is not Unicode text"),
        (&format!(r#""sub":"{long}","#), "`uid` is longer than 256 bytes"),
    ] {
        let reason = denied_for(&[], format!(r#"{{{sub}"exp":2000}}"#));
        assert_eq!(reason, format!("4003 the token names nobody: {expected}"), "{sub}");
    }
}

#[test]
fn claims_are_an_object_that_says_nothing_twice() {
    for claims in [
        "",
        "[]",
        "5",
        "\"sub\"",
        "null",
        "{",
        r#"{"sub":"u1","exp":2000}{}"#,
        r#"{"sub":"u1","exp":2000,"sub":"u2"}"#,
        r#"{"sub":"u1","exp":2000,"s\u0075b":"u2"}"#,
        r#"{"sub":"u1","exp":1,"exp":2000}"#,
        "\u{feff}{\"sub\":\"u1\",\"exp\":2000}",
    ] {
        let reason = denied_for(&[], claims);
        assert_eq!(reason, "4001 the token cannot be read: its claims are not a JSON object", "{claims}");
    }
    assert!(denied_for(&[], b"{\"sub\":\"\xff\",\"exp\":2000}").starts_with("4001 "));
}

#[test]
fn attributes_are_claims() {
    let claims = r#"{"sub":"u1","exp":2000,"role":"admin","level":5,"ok":true,"no":null,"o":{ "a": 1 },
        "list":["a", "b", null, 7, ["c"], ""],"empty":[],"realm_access":{"roles":["x","y"]}}"#;
    let settings = with(&[(
        "JWT_ATTRIBUTES",
        "role, level,ok,no,missing,o,list,empty,roles=/realm_access/roles,again=role,/realm_access/x,/role/x",
    )]);
    let attributes = identity(&settings, &genuine(claims)).unwrap().attributes;
    let attributes: Vec<(&str, &str)> =
        attributes.iter().map(|attribute| (attribute.name.as_str(), attribute.value.as_str())).collect();
    assert_eq!(
        attributes,
        [
            ("role", "admin"),
            ("level", "5"),
            ("ok", "true"),
            ("no", ""),
            ("o", r#"{"a":1}"#),
            ("list", "a"),
            ("list", "b"),
            ("list", "7"),
            ("list", r#"["c"]"#),
            ("list", ""),
            ("empty", ""),
            ("roles", "x"),
            ("roles", "y"),
            ("again", "admin"),
        ]
    );
    assert!(identity(&with(&[]), &genuine(claims)).unwrap().attributes.is_empty());
}

/// An empty claim takes away what a router grants by default; a missing claim does not.
#[test]
fn a_claim_that_holds_nothing_is_an_empty_attribute() {
    let settings = with(&[("JWT_ATTRIBUTES", "r=/o/r")]);
    for (r, expected) in [
        ("null", &[""][..]),
        ("[]", &[""]),
        ("[ ]", &[""]),
        ("[null,null]", &[""]),
        (r#""""#, &[""]),
        (r#"["",null]"#, &[""]),
        (r#"[null,"a"]"#, &["a"]),
        ("[[]]", &["[]"]),
        ("{}", &["{}"]),
    ] {
        let claims = format!(r#"{{"sub":"u1","exp":2000,"o":{{"r":{r}}}}}"#);
        let attributes = identity(&settings, &genuine(claims)).unwrap().attributes;
        assert!(attributes.iter().all(|attribute| attribute.name == "r"), "{r}");
        assert_eq!(attributes.iter().map(|attribute| attribute.value.as_str()).collect::<Vec<_>>(), expected, "{r}");
    }
    for o in ["", r#","o":{}"#, r#","o":null"#, r#","o":[]"#, r#","r":[]"#] {
        let claims = format!(r#"{{"sub":"u1","exp":2000{o}}}"#);
        assert!(identity(&settings, &genuine(claims)).unwrap().attributes.is_empty(), "{o}");
    }
}

#[test]
fn attributes_are_bounded_as_the_host_bounds_them() {
    let settings = &[("JWT_ATTRIBUTES", "r")];
    let of = |roles: usize| format!(r#"{{"sub":"u1","exp":2000,"r":[1{}]}}"#, ",1".repeat(roles - 1));
    assert_eq!(identity(&with(settings), &genuine(of(64))).unwrap().attributes.len(), 64);
    assert_eq!(denied_for(settings, of(65)), "4003 the token is not for here: its claims make too many attributes");
    let doubled = &[("JWT_ATTRIBUTES", "r,again=r")];
    let long = format!(r#"{{"sub":"u1","exp":2000,"r":"{}"}}"#, "x".repeat(8200));
    assert_eq!(denied_for(doubled, long), "4003 the token is not for here: its claims make too many attributes");
    assert_eq!(
        denied_for(settings, r#"{"sub":"u1","exp":2000,"r":"\ud800"}"#),
        "4003 the token is not for here: a claim is not Unicode text"
    );
}
