//! Watches whether the gateways get their turns. On a machine that is too busy, gateways give each other up as if one
//! of them had been stopped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::clients::Crowd;
use super::world::Place;

/// The time between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest time that a gateway takes for a short answer if it gets its turns.
const QUICK: Duration = Duration::from_millis(400);

/// Gateways are given up after 3 s, so what was wrong may have begun so long before.
const BEFORE: Duration = Duration::from_secs(3);

/// Asks one gateway again and again, and notes when it is slow. If it was stopped on purpose, that does not matter.
pub(super) async fn watch(crowd: Arc<Crowd>, gateway: usize) {
    loop {
        sleep(PAUSE).await;
        let Some(place) = crowd.places.get(gateway) else { continue };
        let begin = crowd.record.now();
        // That it does not answer at all is for others to find out.
        _ = timeout(Duration::from_secs(10), ask(&place)).await;
        if crowd.record.now() > begin + QUICK {
            crowd.record.starved(gateway, begin.saturating_sub(BEFORE));
        }
    }
}

async fn ask(place: &Place) -> io::Result<()> {
    let mut stream = TcpStream::connect(place.api.address).await?;
    let request = place.api.request("GET /v1/online?uid=nobody").and("Connection", "close");
    stream.write_all(&request.encode()).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
