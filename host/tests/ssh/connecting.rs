//! Who may answer, and waiting for whom.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use pointsman::settings::SshTimes;
use pointsman::ssh::{ConnectError, HostKey, KeyPair, Phase, Target, connect, connect_until_ready};

use crate::servers::{Kind, Place, Server, TIMES, block_on, on_both_servers};

on_both_servers!(
    another_host_key_is_refused_before_logging_in,
    first_contact_tells_the_key,
    a_strange_client_key_is_refused,
    a_server_that_comes_late_is_waited_for,
);

async fn another_host_key_is_refused_before_logging_in(kind: Kind) {
    let server = Server::start(kind);
    drop(server.session().await);
    let mut target = server.place.target();
    target.host_key = HostKey::Known(KeyPair::generate().unwrap().public_line());
    // Would be told as an authentication error if it came to that.
    target.client_key = KeyPair::generate().unwrap();
    let error = connect(&target, &TIMES).await.err().unwrap();
    let ConnectError::HostKeyChanged { expected, found, .. } = &error else { panic!("{error:?}") };
    assert!(expected.starts_with("SHA256:") && found.starts_with("SHA256:") && expected != found);

    let mut attempts = 0;
    let given_up = connect_until_ready(&target, &TIMES, |_| attempts += 1).await.err().unwrap();
    assert_eq!((attempts, given_up.attempts), (1, 1));
}

async fn first_contact_tells_the_key(kind: Kind) {
    let server = Server::start(kind);
    let mut target = server.place.target();
    target.host_key = HostKey::FirstContact;
    let session = connect_until_ready(&target, &TIMES, |_| {}).await.unwrap();
    assert_eq!(session.host_key(), server.place.host_key.public_line());
    target.host_key = HostKey::Known(session.host_key().to_owned());
    session.close().await;
    connect(&target, &TIMES).await.unwrap();
}

async fn a_strange_client_key_is_refused(kind: Kind) {
    let server = Server::start(kind);
    drop(server.session().await);
    let mut target = server.place.target();
    target.client_key = KeyPair::generate().unwrap();
    let error = connect(&target, &TIMES).await.err().unwrap();
    assert!(matches!(error, ConnectError::Authentication { .. }), "{error:?}");
    assert!(error.hint().contains("authorized_keys"));

    // Retried for some seconds, and not until the long timeout.
    let start = Instant::now();
    let given_up = connect_until_ready(&target, &TIMES, |_| {}).await.err().unwrap();
    assert!(given_up.attempts > 1, "{given_up:?}");
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}

async fn a_server_that_comes_late_is_waited_for(kind: Kind) {
    let place = Place::new(kind);
    let target = place.target();
    let error = connect(&target, &TIMES).await.err().unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");

    let (mut refused, mut other) = (0, Vec::new());
    let waiting = connect_until_ready(&target, &TIMES, |error| match error {
        ConnectError::Refused { .. } => refused += 1,
        error => other.push(error.to_string()),
    });
    let starting = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        place.start()
    };
    let (session, _server) = tokio::join!(waiting, starting);
    session.unwrap();
    assert!(refused >= 3, "{refused} {other:?}");
}

/// The entry script of the article's image writes the key first; others may not.
#[test]
fn a_key_that_is_authorized_late_is_waited_for() {
    block_on(async {
        let server = Server::start(Kind::OpenSsh);
        drop(server.session().await);
        let file = server.place.path("authorized_keys");
        let line = fs::read_to_string(&file).unwrap();
        fs::write(&file, "").unwrap();
        let mut refused = 0;
        let target = server.place.target();
        let waiting = connect_until_ready(&target, &TIMES, |error| {
            assert!(matches!(error, ConnectError::Authentication { .. }), "{error:?}");
            refused += 1;
        });
        let writing = async {
            tokio::time::sleep(Duration::from_millis(800)).await;
            fs::write(&file, line).unwrap();
        };
        let (session, ()) = tokio::join!(waiting, writing);
        session.unwrap();
        assert!(refused >= 1);
    });
}

fn target(listener: &TcpListener) -> Target {
    Target {
        address: listener.local_addr().unwrap(),
        user: "root".into(),
        client_key: KeyPair::generate().unwrap(),
        host_key: HostKey::FirstContact,
    }
}

#[test]
fn silence_is_told_as_such() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let times = SshTimes { connect_timeout: Duration::from_millis(300), ..TIMES };
        let error = connect(&target(&listener), &times).await.err().unwrap();
        assert!(
            matches!(error, ConnectError::TimedOut { phase: Phase::Handshake, .. }),
            "{error:?}"
        );
    });
}

#[test]
fn hanging_up_is_retried_until_the_deadline() {
    block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            address: listener.local_addr().unwrap(),
            user: "root".into(),
            client_key: KeyPair::generate().unwrap(),
            host_key: HostKey::FirstContact,
        };
        tokio::spawn(async move {
            // As OpenSSH does when there are too many.
            while let Ok((mut socket, _)) = listener.accept().await {
                let _ =
                    tokio::io::AsyncWriteExt::write_all(&mut socket, b"Exceeded MaxStartups\r\n")
                        .await;
            }
        });
        let times = SshTimes { ready_timeout: Duration::from_millis(900), ..TIMES };
        let start = Instant::now();
        let given_up = connect_until_ready(&target, &times, |_| {}).await.err().unwrap();
        assert!(matches!(given_up.last, ConnectError::Closed { .. }), "{given_up:?}");
        assert!(given_up.attempts >= 4, "{given_up:?}");
        assert!(start.elapsed() < Duration::from_secs(3));
    });
}

#[test]
fn a_damaged_host_key_line_is_an_error_of_its_own() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target { host_key: HostKey::Known("nonsense".into()), ..target(&listener) };
        let error = connect(&target, &TIMES).await.err().unwrap();
        assert!(matches!(error, ConnectError::HostKeyUnreadable { .. }), "{error:?}");
    });
}
