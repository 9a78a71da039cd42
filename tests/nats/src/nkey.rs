//! Keys of NATS, and credentials that an operator has signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// The key pair of a user.
#[derive(Debug, Clone)]
pub struct Nkey {
    /// The public key; it begins with `U`.
    pub public: String,
    /// The secret seed; it begins with `SU`.
    pub seed: String,
}

/// An operator with one account and one user in it.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// What the user needs to log in: the content of a file of credentials.
    pub user: String,
    /// The lines of a server's configuration that trust the operator.
    pub configuration: String,
}

impl Nkey {
    /// Makes a key pair.
    #[expect(clippy::new_without_default, reason = "each is another key")]
    pub fn new() -> Self {
        Self::of(&KeyPair::new_user())
    }

    fn of(pair: &KeyPair) -> Self {
        Self { public: pair.public_key(), seed: pair.seed().expect("a secret key") }
    }
}

impl Credentials {
    /// Makes an operator, an account and a user that may use these subjects.
    pub fn new(subjects: &[&str]) -> Self {
        let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
        let operator_token = sign(&operator, &operator, json!({"type": "operator", "version": 2}));
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1,
        });
        let claims = json!({"limits": limits, "default_permissions": {"pub": {}, "sub": {}}, "type": "account",
            "version": 2});
        let account_token = sign(&operator, &account, claims);
        let claims = json!({"pub": {"allow": subjects}, "sub": {"allow": subjects}, "subs": -1, "data": -1,
            "payload": -1, "type": "user", "version": 2});
        let user_token = sign(&account, &user, claims);
        let seed = Nkey::of(&user).seed;
        let user = format!(
            "-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let account = account.public_key();
        let configuration = format!(
            "operator: {operator_token}\nresolver: MEMORY\nresolver_preload: {{ {account}: {account_token} }}\n"
        );
        Self { user, configuration }
    }
}

/// Makes a token in which `issuer` says something about `subject`.
fn sign(issuer: &KeyPair, subject: &KeyPair, claims: Value) -> String {
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let subject = subject.public_key();
    let body = json!({"jti": subject, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject, "nats": claims});
    let signed = [head, body].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = issuer.sign(signed.as_bytes()).expect("a secret key");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
