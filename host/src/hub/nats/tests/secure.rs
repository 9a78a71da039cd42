//! TLS.

use hotgate_nats_tests::{Authority, Identity, Nats, NatsSetup};

use super::{Node, config};
use crate::hub::nats::{BusConfig, BusError, Target, TlsFiles};

fn secure(nats: &Nats, authority: &Authority, own: Option<&Identity>) -> BusConfig {
    let own = own.map(|Identity { certificate, key }| (nats.put("own.pem", certificate), nats.put("own.key", key)));
    let tls = TlsFiles { authorities: Some(nats.put("ca.pem", &authority.certificate())), identity: own };
    BusConfig { tls: Some(tls), ..config(&[nats.url().replace("nats:", "tls:")]) }
}

async fn works(settings: BusConfig) {
    let mut node = Node::connect(settings, 1).await;
    node.bus.publish(Target::All, None, vec![b'x'; 60_000]).expect("sent");
    assert_eq!(node.frame().await.len(), 60_000);
}

async fn tls_error(settings: BusConfig) -> String {
    match Node::try_connect(settings, 1).await {
        Err(error @ BusError::Tls { .. }) => error.to_string(),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("a connection"),
    }
}

#[tokio::test]
async fn a_server_with_a_certificate_of_the_authority_is_trusted() {
    let authority = Authority::new();
    let Some(nats) = NatsSetup::new().tls(&authority.issue(&["127.0.0.1"])).start().await else { return };
    works(secure(&nats, &authority, None)).await;
}

#[tokio::test]
async fn other_certificates_are_refused_with_the_reason() {
    let authority = Authority::new();
    let Some(nats) = NatsSetup::new().tls(&authority.issue(&["127.0.0.1"])).start().await else { return };
    let error = tls_error(secure(&nats, &Authority::new(), None)).await;
    assert!(error.ends_with("its certificate comes from an authority that is not trusted"), "{error}");
    println!("{error}");
    for (identity, reason) in [
        (authority.issue(&["nats.example.com"]), "not valid for name"),
        (authority.issue_until(&["127.0.0.1"], (2020, 1, 1)), "expired"),
    ] {
        let Some(nats) = NatsSetup::new().tls(&identity).start().await else { return };
        let error = tls_error(secure(&nats, &authority, None)).await;
        println!("{error}");
        assert!(error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = authority.issue(&["127.0.0.1"]);
    let Some(nats) = NatsSetup::new().mutual_tls(&server, &clients).start().await else { return };
    works(secure(&nats, &authority, Some(&clients.issue(&["gateway-1"])))).await;
    for wrong in [None, Some(authority.issue(&["gateway-1"]))] {
        println!("{}", tls_error(secure(&nats, &authority, wrong.as_ref())).await);
    }
}

#[tokio::test]
async fn tls_is_never_left_out() {
    let authority = Authority::new();
    // A server without TLS, and settings with it.
    let Some(plain) = NatsSetup::new().start().await else { return };
    let error = tls_error(secure(&plain, &authority, None)).await;
    assert!(error.ends_with(": it does not speak TLS"), "{error}");
    // The address alone asks for TLS.
    let error = tls_error(config(&[plain.url().replace("nats:", "tls:")])).await;
    assert!(error.ends_with(": it does not speak TLS"), "{error}");
    // A server with TLS, and settings without.
    let Some(nats) = NatsSetup::new().tls(&authority.issue(&["127.0.0.1"])).start().await else { return };
    let error = tls_error(config(&[nats.url()])).await;
    assert!(error.ends_with(": it wants TLS: write tls:// in its address"), "{error}");
}
