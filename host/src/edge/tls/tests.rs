//! Tests of encrypted streams, against the client of another library.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ExtractedSecrets, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::config::CertificateConfig;
use crate::edge::listener::Stream;

const NAME: &str = "push.example.com";

/// A stream in memory in place of a socket.
impl Stream for DuplexStream {
    fn is_dead(&self) -> bool {
        false
    }

    fn reset_on_drop(&self) {}
}

/// A listener's TLS, and a client that trusts it.
struct Pair {
    tls: Arc<Tls>,
    client: ClientConfig,
    config: ListenerConfig,
    _folder: TempDir,
}

impl Pair {
    fn new(options: TlsOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = |name: &str, content: String| {
            std::fs::write(folder.path().join(name), content).unwrap();
            folder.path().join(name)
        };
        let pair = CertificateConfig { certificate: file("c", own.pem()), key: file("k", key.serialize_pem()) };
        let config = ListenerConfig { certificates: vec![pair], tls_options: options, ..ListenerConfig::default() };
        let mut roots = RootCertStore::empty();
        roots.add(own.der().clone()).unwrap();
        let client =
            ClientConfig::builder_with_provider(PROVIDER.clone()).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        Self { tls: Tls::load(ListenerName::WebSocket, &config).unwrap().unwrap(), client, config, _folder: folder }
    }

    /// Connects both over a stream that holds `room` bytes in each direction.
    async fn connect(&self, room: usize) -> (ClientStream<DuplexStream>, Secured<DuplexStream>) {
        let (near, far) = duplex(room);
        let mut server = Secured::new(far, Some(&self.tls)).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let connector = TlsConnector::from(Arc::new(self.client.clone()));
        let (client, accepted) = tokio::join!(connector.connect(name, near), server.handshake());
        accepted.unwrap();
        (client.unwrap(), server)
    }
}

/// Sends bytes one way and reads them on the other side.
async fn pass(
    from: &mut (impl tokio::io::AsyncWrite + Unpin),
    to: &mut (impl tokio::io::AsyncRead + Unpin),
    bytes: &[u8],
) {
    let send = async {
        from.write_all(bytes).await.unwrap();
        from.flush().await.unwrap();
    };
    let receive = async {
        let mut received = vec![0; bytes.len()];
        to.read_exact(&mut received).await.unwrap();
        assert!(received == bytes, "{} bytes", bytes.len());
    };
    timeout(Duration::from_secs(30), async { tokio::join!(send, receive) }).await.expect("it does not hang");
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[tokio::test]
async fn any_number_of_bytes_passes_through_any_little_room() {
    for (room, minimum) in [(1 << 20, TlsVersion::V1_3), (100, TlsVersion::V1_3), (1 << 16, TlsVersion::V1_2)] {
        let pair = Pair::new(TlsOptions { minimum, ..TlsOptions::default() });
        let (mut client, mut server) = pair.connect(room).await;
        for length in [1, 2, 16_383, 16_384, 16_385, 32_768, 32_769, 200_000] {
            pass(&mut client, &mut server, &bytes(length)).await;
            pass(&mut server, &mut client, &bytes(length)).await;
        }
        assert_eq!((server.unread(), server.unsent()), (0, 0), "a connection that waits holds nothing");
    }
}

#[tokio::test]
async fn a_reader_with_little_room_gets_every_byte_in_order() {
    let pair = Pair::new(TlsOptions::default());
    let (mut client, mut server) = pair.connect(1 << 20).await;
    let sent = bytes(100_000);
    for part in sent.chunks(10_000) {
        client.write_all(part).await.unwrap();
    }
    client.flush().await.unwrap();
    let mut received = Vec::new();
    let mut most = 0;
    while received.len() < sent.len() {
        let mut small = [0; 333];
        let count = server.read(&mut small).await.unwrap();
        received.extend_from_slice(&small[..count]);
        most = most.max(server.unread());
        // It writes meanwhile: what waits to be read must not be lost.
        pass(&mut server, &mut client, b"meanwhile").await;
    }
    assert!(received == sent);
    assert!(most < 64 << 10, "{most} bytes wait for the reader");
    assert_eq!(server.unread(), 0);
}

#[tokio::test]
async fn new_keys_pass_unnoticed() {
    let pair = Pair::new(TlsOptions::default());
    let (mut client, mut server) = pair.connect(1 << 16).await;
    for _ in 0..5 {
        pass(&mut client, &mut server, b"before").await;
        client.get_mut().1.refresh_traffic_keys().unwrap();
        pass(&mut client, &mut server, b"after").await;
        pass(&mut server, &mut client, b"answer").await;
    }
}

#[tokio::test]
async fn both_sides_announce_their_end() {
    let pair = Pair::new(TlsOptions::default());
    let (mut client, mut server) = pair.connect(1 << 16).await;
    server.write_all(b"last").await.unwrap();
    server.shutdown().await.unwrap();
    let mut received = Vec::new();
    // Without the announcement, this client fails.
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"last");
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0);

    // A client that only ends its own side still gets its answers.
    let (mut client, mut server) = pair.connect(1 << 16).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0);
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, b"answer");
}

#[tokio::test]
async fn what_is_no_tls_is_refused_with_an_alert() {
    let pair = Pair::new(TlsOptions::default());
    for sent in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0, 4, 1, 0, 0, 0], &[0; 20_000], &[0x17, 3, 3, 0x40, 0, 1]]
    {
        let (mut near, far) = duplex(1 << 16);
        let mut server = Secured::new(far, Some(&pair.tls)).unwrap();
        near.write_all(sent).await.unwrap();
        near.shutdown().await.unwrap();
        server.handshake().await.unwrap_err();
        drop(server);
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty() || answer[0] == 0x15, "not an alert: {answer:?}");
    }
}

#[tokio::test]
async fn a_record_that_was_changed_on_its_way_ends_the_connection() {
    let pair = Pair::new(TlsOptions::default());
    let (mut client, mut server) = pair.connect(1 << 16).await;
    pass(&mut client, &mut server, b"good").await;
    client
        .get_mut()
        .0
        .write_all(&[0x17, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
        .await
        .unwrap();
    let error = server.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn part_of_a_record_waits_and_is_counted() {
    let pair = Pair::new(TlsOptions::default());
    let (mut client, mut server) = pair.connect(1 << 16).await;
    pass(&mut client, &mut server, b"x").await;
    client.get_mut().0.write_all(&[&[0x17, 3, 3, 0x40, 0][..], &[0; 10_000]].concat()).await.unwrap();
    let mut buffer = [0; 10];
    assert!(timeout(Duration::from_millis(50), server.read(&mut buffer)).await.is_err());
    assert_eq!(server.unread(), 10_005);
    // It can still write.
    pass(&mut server, &mut client, b"meanwhile").await;
}

#[tokio::test]
async fn a_ticket_is_no_way_around_new_rules() {
    let mut pair = Pair::new(TlsOptions::default());
    let connect = async |pair: &Pair| {
        let (mut client, mut server) = pair.connect(1 << 16).await;
        // The ticket comes with the first bytes.
        pass(&mut server, &mut client, b"hello").await;
        client.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(connect(&pair).await, HandshakeKind::Full);
    assert_eq!(connect(&pair).await, HandshakeKind::Resumed);
    assert!(!pair.tls.reload(&pair.config).unwrap(), "nothing has changed");
    assert_eq!(connect(&pair).await, HandshakeKind::Resumed);
    pair.config.tls_options.client_ca = Some(pair.config.certificates[0].certificate.clone());
    pair.config.tls_options.client_auth = ClientAuth::Optional;
    assert!(pair.tls.reload(&pair.config).unwrap());
    assert_eq!(connect(&pair).await, HandshakeKind::Full);
    pair.config.tls_options.tickets = false;
    assert!(pair.tls.reload(&pair.config).unwrap());
    assert_eq!((connect(&pair).await, connect(&pair).await), (HandshakeKind::Full, HandshakeKind::Full));
}

#[tokio::test]
async fn part_of_a_message_and_an_error_after_it_make_nothing_panic() {
    // The session of the client is driven by hand: it must encrypt part of a message of the handshake protocol.
    let options = TlsOptions { minimum: TlsVersion::V1_3, tickets: false, ..TlsOptions::default() };
    let mut pair = Pair::new(options);
    pair.client.enable_secret_extraction = true;
    for sent_first in [false, true] {
        let (mut client, mut server) = pair.connect(1 << 16).await;
        pass(&mut client, &mut server, b"x").await;
        pass(&mut server, &mut client, b"x").await;
        let (mut stream, connection) = client.into_inner();
        let mut secrets = connection.dangerous_extract_secrets().unwrap();
        let part = encrypted(&mut secrets, &[0x18, 0, 0], 22);
        stream.write_all(&part).await.unwrap();
        if sent_first {
            // The part has arrived before the server writes.
            assert!(timeout(Duration::from_millis(50), server.read(&mut [0; 10])).await.is_err());
            server.write_all(b"answer").await.unwrap();
            server.flush().await.unwrap();
        }
        stream.write_all(&[&[0x17, 3, 3, 0, 20][..], &[7; 20]].concat()).await.unwrap();
        server.read(&mut [0; 10]).await.unwrap_err();
        server.write_all(b"answer").await.and(server.flush().await).unwrap_err();
        server.shutdown().await.unwrap();
    }
}

/// Encrypts a record with content of this type (RFC 8446 §5.2) by the secrets that a client sends with.
fn encrypted(secrets: &mut ExtractedSecrets, content: &[u8], content_type: u8) -> Vec<u8> {
    use rustls::ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm};
    let (sequence, traffic) = (secrets.tx.0, &secrets.tx.1);
    let (key, iv, algorithm) = match traffic {
        Aes128Gcm { key, iv } => (key, iv, &::ring::aead::AES_128_GCM),
        Aes256Gcm { key, iv } => (key, iv, &::ring::aead::AES_256_GCM),
        _ => panic!("AES is preferred"),
    };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    nonce.iter_mut().skip(4).zip(sequence.to_be_bytes()).for_each(|(own, byte)| *own ^= byte);
    let length = u16::try_from(content.len() + 1 + 16).unwrap().to_be_bytes();
    let head = [0x17, 3, 3, length[0], length[1]];
    let mut bytes = [content, &[content_type]].concat();
    let key = ::ring::aead::LessSafeKey::new(::ring::aead::UnboundKey::new(algorithm, key.as_ref()).unwrap());
    let nonce = ::ring::aead::Nonce::assume_unique_for_key(nonce);
    key.seal_in_place_append_tag(nonce, ::ring::aead::Aad::from(head), &mut bytes).unwrap();
    secrets.tx.0 += 1;
    [&head[..], &bytes].concat()
}
