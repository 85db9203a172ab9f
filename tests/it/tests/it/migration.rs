//! Connection migration: a client that moves to another UDP port in mid-stream loses nothing.

use chaski_client::Message;
use chaski_it::Router;

use crate::leases::next;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_moves_to_another_port_loses_nothing() {
    let router = Router::with_rules("[queue.q]\n");
    let client = router.client().await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    const COUNT: usize = 600;
    let mut confirms = Vec::new();
    for n in 0..COUNT {
        if n % 200 == 100 {
            client.rebind().expect("there is another port");
        }
        confirms
            .push(client.publish_pipelined(Message::new("q", format!("{n}"))).await.expect("there is room"));
        if n % 3 == 0 {
            let delivery = next(&mut consumer).await;
            assert_eq!(
                (delivery.attempt(), delivery.redelivered()),
                (1, false),
                "the connection is the same"
            );
            delivery.ack().await.expect("the lease is held");
        }
    }
    for confirm in confirms {
        let published = confirm.await.expect("it is taken");
        assert!(!published.duplicate, "sent once");
    }
    for _ in 0..COUNT - COUNT / 3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.attempt(), 1);
        delivery.ack().await.expect("the lease is held");
    }
    assert_eq!(router.count("q", "messages"), 0);
}
