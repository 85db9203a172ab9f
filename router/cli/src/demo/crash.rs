//! The act of the crash: the router is killed while publishes and deliveries are under way, and started again.

use std::ops::Range;
use std::time::Instant;

use super::consumers::Seen;
use super::{Stage, confirmed, processed};
use crate::child::Router;

impl Stage {
    /// Publishes this part; the router dies meanwhile, with publishes unconfirmed and deliveries out.
    pub(super) async fn publish_with_a_crash(
        &mut self,
        router: Router,
        part: Range<usize>,
        seen: &Seen,
    ) -> anyhow::Result<Router> {
        let quarter = self.events.len() as u64 / 8;
        seen.until(|seen| processed(seen) >= quarter).await;
        let before = processed(&seen.lock());

        // Sent, and not waited for: the router is killed with these under way.
        let mut under_way = self.send(&self.events[part]).await?;
        let killed = Instant::now();
        let pid = router.pid();
        let setup = router.kill().await?;
        let mut lucky = Vec::new();
        under_way = {
            let mut waiting = Vec::new();
            for mut confirm in under_way {
                match futures::poll!(&mut confirm) {
                    std::task::Poll::Ready(published) => lucky.push(published?),
                    std::task::Poll::Pending => waiting.push(confirm),
                }
            }
            waiting
        };
        self.count_confirmed(&lucky);
        self.counts.unconfirmed_at_kill = under_way.len() as u64;
        self.narrator.say(format!(
            "SIGKILL to process {pid}: {before} events were processed, {} publishes had no confirm",
            under_way.len()
        ));

        let router = Router::start(setup).await?;
        self.counts.restart_ms = killed.elapsed().as_millis() as u64;
        self.narrator.say(format!(
            "restarted as process {}, same data: listening {} ms after the kill",
            router.pid(),
            self.counts.restart_ms
        ));
        let rest = confirmed(under_way).await?;
        self.count_confirmed(&rest);
        self.narrator.say(format!(
            "the client reconnected by itself and sent those {} again, under the same ids: confirmed",
            rest.len()
        ));
        Ok(router)
    }
}
