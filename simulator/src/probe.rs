//! When a task's server answers, for measurements: connects to it until it greets.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::ledger::Event;
use crate::service::Service;

/// Between tries: small beside what is measured, large beside the cost of a refused connection.
const PAUSE: Duration = Duration::from_millis(3);
/// A server that is silent for so long does not come any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Notes in the ledger when the server at `address` greets.
pub(crate) async fn probe(
    service: Arc<Service>,
    task: String,
    container: String,
    address: SocketAddrV4,
) {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && !service.is_ending() {
        if timeout(PATIENCE, greets(address)).await == Ok(true) {
            service.ledger.write(Event::ServerAnswers { task, container });
            return;
        }
        sleep(PAUSE).await;
    }
}

/// An SSH server speaks first (RFC 4253, section 4.2).
async fn greets(address: SocketAddrV4) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.is_ok() && greeting == *b"SSH-"
}
