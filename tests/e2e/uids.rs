//! Valid uids: JSON strings by their value, JSON integers by their digits.

use hotgate_tests::Gateway;

#[tokio::test]
async fn a_string_and_the_integer_with_the_same_digits_are_one_uid() {
    let gateway = Gateway::start().await;
    for (id, uid) in [
        (r#""u1""#, r#""u1""#),
        ("7", r#""7""#),
        (r#""8""#, "8"),
        ("9", "9"),
        ("0", r#""0""#),
        ("-7", r#""-7""#),
        ("-0", r#""-0""#),
        ("123456789012345678901234567890", r#""123456789012345678901234567890""#),
        (r#""18446744073709551616""#, "18446744073709551616"),
        (r#""\u00fc\ud83d\ude00""#, r#""ü😀""#),
        (r#"" u ""#, r#"" u ""#),
        (r#""null""#, r#""null""#),
    ] {
        let mut client = gateway.connect().await;
        client.expect("HeartBeat").await;
        client.send(format!(r#"{{"id":{id}}}"#)).await;
        client.expect("Link_successful").await;
        let line = format!(r#"{{"uid":{uid}}}"#);
        assert_eq!(gateway.sender().await.ask(&line).await, "ok", "{id} and {uid}");
        client.expect(line).await;
        client.send(format!(r#"{{"id":{uid},"msg":"to myself"}}"#)).await;
        client.expect("to myself").await;
        client.expect("Already_Linked").await;
    }
}

#[tokio::test]
async fn of_duplicate_keys_the_last_wins() {
    let gateway = Gateway::start().await;
    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    client.send(r#"{"id":"first","id":[],"id":"last"}"#).await;
    client.expect("Link_successful").await;
    assert!(!gateway.reaches("first").await);

    let line = r#"{"uid":"first","uid":"last"}"#;
    assert_eq!(gateway.sender().await.ask(line).await, "ok");
    client.expect(line).await;
    client.send(r#"{"id":"first","id":"last","msg":"lost","msg":"kept"}"#).await;
    client.expect("kept").await;
    client.expect("Already_Linked").await;
}

#[tokio::test]
async fn on_the_text_port_a_uid_that_is_neither_string_nor_integer_fails() {
    let gateway = Gateway::start().await;
    let _clients = [gateway.login("1").await, gateway.login("1.0").await, gateway.login("true").await];
    let mut sender = gateway.sender().await;
    for uid in ["1.0", "1e0", "true", "null", "[]", r#"["1"]"#, "{}", r#"{"1":1}"#, r#""""#, "01", "+1"] {
        assert_eq!(sender.ask(format!(r#"{{"uid":{uid}}}"#)).await, "fail", "{uid}");
    }
    assert_eq!(sender.ask(r#"{"uid":1}"#).await, "ok");
}

#[tokio::test]
async fn a_uid_has_at_most_256_bytes() {
    let gateway = Gateway::start().await;
    let (longest, longer) = ("u".repeat(256), "u".repeat(257));
    let _client = gateway.login(&longest).await;
    assert!(gateway.reaches(&longest).await);

    let mut client = gateway.connect().await;
    client.expect("HeartBeat").await;
    client.send(format!(r#"{{"id":"{longer}"}}"#)).await;
    client.expect_close(4400).await;
    assert!(!gateway.reaches(&longer).await);
}
