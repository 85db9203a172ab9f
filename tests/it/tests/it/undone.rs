//! SIGKILL in mid-gather and mid-saga, with workers that die, are silent, say no, or do their work too late: whatever happened,
//! each effect happened once, what had to be undone is undone once, and the books balance.
//!
//! `CHASKI_KILLS=200` kills more often, `CHASKI_SEED=N` draws the same chances again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaski_client::{Client, Delivery, Message, Phase, RequestError, Retry};
use chaski_it::{Router, within};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Kills without `CHASKI_KILLS`.
const KILLS: u64 = 20;

/// Sagas and gathers under way at a time.
const AT_ONCE: usize = 12;

const STEPS: [(&str, &str, Option<&str>); 3] = [
    ("reserve", "stock.reserve", Some("stock.release")),
    ("charge", "card.charge", Some("card.refund")),
    ("ship", "ship.book", None),
];

const SUPPLIERS: [&str; 3] = ["supplier-a", "supplier-b", "supplier-c"];

fn rules() -> String {
    let mut rules = "[module.lowest]\nbuiltin = \"lowest-quote\"\nparams = { pointer = \"/price\" }\n\
        [module.money-first]\nbuiltin = \"order-compensation\"\nparams = { order = [\"charge\", \"reserve\"] }\n\
        [scatter.quote]\ntopic = \"quotes.request\"\nrecipients = [\"supplier-a\", \"supplier-b\", \"supplier-c\"]\n\
        aggregator = \"lowest\"\ntimeout = \"2s\"\n\
        [saga.order]\ntopic = \"orders.place\"\ncompensator = \"money-first\"\ntimeout = \"20s\"\nsteps = [\n"
        .to_owned();
    let queues = STEPS.iter().flat_map(|(_, queue, undo)| [Some(*queue), *undo]).flatten();
    for (name, queue, undo) in STEPS {
        let undo = undo.map_or("pivot = true".to_owned(), |undo| format!("compensate = \"{undo}\""));
        rules += &format!(
            "{{ name = \"{name}\", queue = \"{queue}\", {undo}, timeout = \"1s\", retries = 2, backoff = [\"10ms\"] }},\n"
        );
    }
    rules += "]\n";
    for queue in queues.chain(SUPPLIERS) {
        // Answers are remembered for as long as the test may take.
        rules +=
            &format!("[queue.\"{queue}\"]\nmax_deliver = 1000\nbackoff = [\"5ms\"]\ndedup_window = \"2h\"\n");
    }
    rules
}

/// Chances, drawn from a seed (SplitMix64).
struct Chances(AtomicU64);

impl Chances {
    fn below(&self, end: u64) -> u64 {
        let mut bits = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}

/// What the workers' database knows of a step, by its idempotency key. It outlives the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    done: u32,
    undone: u32,
    closed: bool,
    /// How often a worker said no to it.
    refused: u32,
}

#[derive(Default)]
struct Books(Mutex<HashMap<String, Entry>>);

impl Books {
    /// What is known of a step.
    fn entry(&self, key: &str) -> Entry {
        self.0.lock().expect("nobody panicked").get(key).copied().unwrap_or_default()
    }

    /// Does the step, once, unless it was closed, or refused since the delivery came: the saga may know it as failed by then, and a
    /// delivery from before a crash must not do it after all. False: it was not done.
    fn enter(&self, key: &str, refused: u32) -> bool {
        let mut books = self.0.lock().expect("nobody panicked");
        let entry = books.entry(key.to_owned()).or_default();
        if entry.done == 0 && !entry.closed && entry.refused == refused {
            entry.done += 1;
        }
        entry.done > 0 && !entry.closed
    }

    /// Says no to the step; false: it is done.
    fn refuse(&self, key: &str) -> bool {
        let mut books = self.0.lock().expect("nobody panicked");
        let entry = books.entry(key.to_owned()).or_default();
        entry.refused += 1;
        entry.done == 0
    }

    /// Undoes the step, once, if it was done; it is done no more from then on.
    fn undo(&self, key: &str) {
        let mut books = self.0.lock().expect("nobody panicked");
        let entry = books.entry(key.to_owned()).or_default();
        if entry.done > entry.undone {
            entry.undone += 1;
        }
        entry.closed = true;
    }
}

/// What all tasks share.
struct World {
    seed: u64,
    chances: Chances,
    books: Books,
    /// Workers behave from now on.
    calm: AtomicBool,
    url: String,
    ca: std::path::PathBuf,
}

impl World {
    /// Whether it happens, so many times in a hundred; never when all is calm.
    fn mischief(&self, percent: u64) -> bool {
        !self.calm.load(Ordering::Relaxed) && self.chances.below(100) < percent
    }

    async fn client(&self) -> Client {
        let quick = (Duration::from_millis(10), Duration::from_millis(100));
        let client = Client::builder().ca_file(&self.ca).reconnect_backoff(quick.0, quick.1);
        loop {
            // The router may be down just now.
            match client.clone().connect(&self.url).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(quick.0).await,
            }
        }
    }

    /// One delivery, as a worker of the shop sees it.
    async fn work(self: Arc<Self>, delivery: Delivery) {
        let step = delivery.step().expect("only the saga sends here");
        let undo = step.phase() == Phase::Undo;
        let key = step.key().strip_suffix("/undo").unwrap_or(step.key()).to_owned();
        let refused = self.books.entry(&key).refused;
        if self.mischief(if undo { 3 } else { 6 }) {
            // It thinks for longer than the step may take, and does it all the same.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        } else if self.mischief(6) {
            // It dies before it has done anything; dropped, the delivery comes again.
            return;
        }
        if undo {
            self.books.undo(&key);
        } else if self.mischief(10) && self.books.refuse(&key) {
            let retry = if self.mischief(50) { Retry::Yes } else { Retry::No };
            return drop(delivery.fail("no", retry).await);
        } else if !self.books.enter(&key, refused) {
            return drop(delivery.fail("it is done no more", Retry::No).await);
        }
        if self.mischief(6) {
            // It dies before it has said so.
            return;
        }
        // A lost lease means that the step comes again, or is decided otherwise.
        drop(delivery.complete(json!({ "key": key }).to_string()).await);
    }

    /// One request, as a supplier sees it.
    async fn quote(self: Arc<Self>, delivery: Delivery) {
        if self.mischief(5) {
            tokio::time::sleep(Duration::from_millis(2_100)).await;
        } else if self.mischief(5) {
            return;
        }
        match self.mischief(10) {
            true => drop(delivery.fail("sold out", Retry::No).await),
            false => {
                let price = 1 + self.chances.below(1_000);
                drop(delivery.reply(json!({ "price": price }).to_string()).await);
            }
        }
    }

    /// A worker that dies now and then with all that it has in its hands, and another one takes its place.
    async fn staff(self: Arc<Self>, queue: String) {
        loop {
            let world = self.clone();
            let queue = queue.clone();
            let mut worker = tokio::spawn(async move {
                let client = world.client().await;
                let mut deliveries = client.consume(&queue).credit(16).await.expect("the queue is there");
                let mut hands = tokio::task::JoinSet::new();
                while let Some(delivery) = deliveries.try_next().await.expect("the consumer resumes") {
                    match queue.starts_with("supplier") {
                        true => hands.spawn(world.clone().quote(delivery)),
                        false => hands.spawn(world.clone().work(delivery)),
                    };
                }
            });
            let life = Duration::from_millis(200 + self.chances.below(2_000));
            tokio::select! {
                ended = &mut worker => panic!("a worker ended by itself: {ended:?}"),
                () = tokio::time::sleep(life) => {}
            }
            if self.calm.load(Ordering::Relaxed) {
                return worker.await.expect("it lives as long as the test");
            }
            worker.abort();
        }
    }
}

/// What became of a request: the payload, or the error's name.
fn outcome(answer: Result<Message, RequestError>) -> Result<String, String> {
    match answer {
        Ok(answer) => Ok(String::from_utf8_lossy(answer.payload()).into_owned()),
        Err(error) => Err(error.code().name().to_owned()),
    }
}

/// A saga that was begun, or a gather that has ended.
enum Event {
    Begun,
    Gathered(String, Result<String, String>),
}

async fn one(client: Client, number: u64) -> Event {
    if number.is_multiple_of(3) {
        let id = format!("q-{number}");
        let request = Message::new("quotes.request", "a potato").id(&id);
        let answer = client.request(request).timeout(chaski_it::PATIENCE).await;
        return Event::Gathered(id, outcome(answer));
    }
    let order = Message::new("orders.place", "{}").id(format!("o-{number}"));
    let begun = client.publish(order).await.expect("it is confirmed in the end");
    assert!(begun.duplicate || begun.routed == 1, "{begun:?}");
    Event::Begun
}

/// Begins sagas and gathers until told to stop; answers how many, and what the gathers answered.
async fn load(
    client: Client,
    stop: watch::Receiver<bool>,
    count: watch::Sender<u64>,
) -> (u64, BTreeMap<String, Result<String, String>>) {
    let (mut number, mut gathers) = (0, BTreeMap::new());
    let mut under_way = futures::stream::FuturesUnordered::new();
    loop {
        while under_way.len() < AT_ONCE && !*stop.borrow() {
            under_way.push(one(client.clone(), number));
            number += 1;
        }
        match under_way.next().await {
            Some(Event::Begun) => {}
            Some(Event::Gathered(id, outcome)) => drop(gathers.insert(id, outcome)),
            None => return (number, gathers),
        }
        count.send_modify(|count| *count += 1);
    }
}

/// Until no saga is under way; their states by id. The waits between five attempts at a compensation add up to more than 2.5 min.
async fn settled(client: &Client) -> BTreeMap<String, String> {
    let begun = std::time::Instant::now();
    loop {
        let sagas = client.admin().sagas(None).await.expect("it answers");
        let under_way = sagas.iter().find(|saga| saga.state == "running" || saga.state == "compensating");
        let Some(saga) = under_way else {
            return sagas.into_iter().map(|saga| (saga.id, saga.state)).collect();
        };
        if begun.elapsed() > Duration::from_secs(300) {
            panic!("it does not end: {:#?}", client.admin().saga(&format!("order/{}", saga.id)).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_in_mid_saga_and_mid_gather_do_nothing_twice_and_leave_nothing_half_done() {
    let from_environment = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let kills = from_environment("CHASKI_KILLS").unwrap_or(KILLS);
    let seed = from_environment("CHASKI_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let mut router = Router::with_rules(&rules());
    let world = Arc::new(World {
        seed,
        chances: Chances(AtomicU64::new(seed)),
        books: Books::default(),
        calm: AtomicBool::new(false),
        url: router.url(),
        ca: router.ca(),
    });
    eprintln!("CHASKI_SEED={} CHASKI_KILLS={kills}", world.seed);
    let mut staff = tokio::task::JoinSet::new();
    let queues = STEPS.iter().flat_map(|(_, queue, undo)| [Some(*queue), *undo]).flatten();
    for queue in queues.chain(SUPPLIERS) {
        staff.spawn(world.clone().staff(queue.to_owned()));
    }
    let (stop, stopped) = watch::channel(false);
    let (count, mut counted) = watch::channel(0);
    let client = world.client().await;
    let loading = tokio::spawn(load(client.clone(), stopped, count));
    // A client that only waits finds out at its next keep-alive, after up to 10 s, that its router has died. This one always has
    // something to say.
    let talking = client.clone();
    staff.spawn(async move {
        loop {
            talking.publish_datagram(Message::new("tick", "")).ok();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });

    for _ in 0..kills {
        let goal = *counted.borrow() + 1 + world.chances.below(12);
        within("progress", counted.wait_for(|count| *count >= goal)).await.expect("the load goes on");
        tokio::time::sleep(Duration::from_millis(world.chances.below(100))).await;
        router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    }
    stop.send(true).expect("somebody listens");
    let (begun, gathers) = within("the last answers", loading).await.expect("the load ends");
    world.calm.store(true, Ordering::Relaxed);
    let states = settled(&client).await;

    // Every order that was confirmed is a saga, and every request has its answer, the same when it is asked again.
    let orders = (0..begun).filter(|number| number % 3 > 0).count();
    assert_eq!((states.len(), gathers.len()), (orders, begun as usize - orders));
    for (id, first) in &gathers {
        let request = Message::new("quotes.request", "a potato").id(id);
        let again = within("the answer", client.request(request).timeout(Duration::from_secs(30))).await;
        assert_eq!(outcome(again), *first, "gather {id}");
        assert!(first.is_ok() || matches!(first, Err(code) if code == "timeout"), "gather {id}: {first:?}");
    }

    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let books = world.books.0.lock().expect("nobody panicked").clone();
    for (id, state) in &states {
        let entry = |step: &str| books.get(&format!("order/{id}/{step}")).copied().unwrap_or_default();
        let [reserve, charge, ship] = STEPS.map(|(step, ..)| entry(step));
        let all = format!("{id} is {state}: reserve {reserve:?}, charge {charge:?}, ship {ship:?}");
        *counts.entry(state).or_default() += 1;
        assert!([reserve, charge, ship].iter().all(|it| it.undone <= it.done && it.done <= 1), "{all}");
        let done = [reserve, charge, ship].map(|it| it.done - it.undone);
        match state.as_str() {
            "completed" => assert_eq!(done, [1, 1, 1], "{all}"),
            "compensated" => assert_eq!(done, [0, 0, 0], "{all}"),
            "parked" => {}
            _ => panic!("{all}"),
        }
        if state != "parked" {
            let order = Message::new("orders.place", "{}").id(id);
            let told = within("the outcome", client.request(order).timeout(Duration::from_secs(30))).await;
            let told: Value = serde_json::from_slice(told.expect("it has ended").payload()).expect("JSON");
            assert_eq!(told["state"], **state, "{all}");
        }
    }
    eprintln!("{} gathers, sagas: {counts:?}", gathers.len());
    assert!(counts.contains_key("completed") && counts.contains_key("compensated"), "{counts:?}");

    // Nothing is left anywhere: not in a queue, and no dead letter but copies of compensations that failed.
    for queue in client.admin().queue_list().await.expect("it answers") {
        assert_eq!((queue.messages, queue.dead), (0, 0), "{}", queue.name);
    }
    drop(client);
    tokio::task::spawn_blocking(|| drop(router.stop())).await.expect("it ends in good order");
}
