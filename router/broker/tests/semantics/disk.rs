//! Low and full disks.

use chaski_broker::{
    Command, DiskState, Durability, OperateError, Operation, PublishError, RulesRefused, SettleError,
    TransactionError, Verdict,
};

use crate::harness::{World, draft, queue};

fn disk(world: &mut World, state: DiskState) {
    world.call(Command::Disk(state));
}

#[test]
fn low_disk_refuses_publishes_and_redrives_while_settlements_and_dead_lettering_go_on() {
    let mut world = World::new(&[queue("work"), queue("fast").durability(Durability::Memory)]);
    for id in ["a", "b", "c"] {
        world.store(draft("work", id));
    }
    let consumer = world.attach("work", 64);
    disk(&mut world, DiskState::Low);
    assert_eq!(world.try_publish(draft("work", "d")), Err(PublishError::DiskLow));
    assert!(world.publish(draft("work", "a")).duplicate, "dedup comes first");
    assert_eq!(world.publish(draft("fast", "m")).routed, 1);
    let deliveries = [world.next(consumer), world.next(consumer), world.next(consumer)];
    world.ack(consumer, &deliveries[0]);
    world.reject(consumer, &deliveries[1], "bad");
    let redrive = Operation::Redrive { select: Default::default(), limit: 9 };
    assert_eq!(world.operate("work", redrive), Err(OperateError::DiskLow));
    let refused = world.transact("t", &[("work", &deliveries[2])], &[(draft("work", "e"), false)]);
    assert_eq!(refused, Err(TransactionError::Disk(PublishError::DiskLow)));
    assert!(world.transact("t", &[("work", &deliveries[2])], &[]).is_ok());
    disk(&mut world, DiskState::Plenty);
    assert_eq!(world.publish(draft("work", "d")).routed, 1);
}

#[test]
fn full_disk_refuses_whatever_needs_a_record_and_timers_pause() {
    let mut world = World::new(&[queue("work").with(|settings| settings.ack_wait_ms = 1_000)]);
    for id in ["a", "b"] {
        world.store(draft("work", id));
    }
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    disk(&mut world, DiskState::Full);
    let position = world.broker.position();
    assert_eq!(world.try_publish(draft("work", "c")), Err(PublishError::DiskFull));
    assert_eq!(world.settle(consumer, &delivery, Verdict::Ack), Err(SettleError::DiskFull));
    assert_eq!(world.operate("work", Operation::Purge { limit: 9 }), Err(OperateError::DiskFull));
    assert_eq!(world.reload(&[queue("work")]), Err(RulesRefused::DiskFull));
    let refused = world.transact("t", &[("work", &delivery)], &[]);
    assert_eq!(refused, Err(TransactionError::Disk(PublishError::DiskFull)));
    world.advance(60_000);
    assert_eq!(world.broker.position(), position, "no record");
    assert_eq!(world.counts("work"), [1, 0, 0, 1]);
    disk(&mut world, DiskState::Plenty);
    world.advance(0);
    assert_eq!(world.counts("work")[1], 1, "the lease that ran out ends now");
}

#[test]
fn consumer_lost_on_a_full_disk_returns_its_leases_later() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.try_attach(5, "work", 1).expect("the queue is there");
    world.next(consumer);
    disk(&mut world, DiskState::Full);
    world.disconnect(5);
    disk(&mut world, DiskState::Plenty);
    let consumer = world.attach("work", 1);
    assert_eq!(world.next(consumer).attempt, 2);
}

#[test]
fn memory_queues_go_on_with_a_full_disk() {
    let mut world = World::new(&[queue("fast").durability(Durability::Memory)]);
    disk(&mut world, DiskState::Full);
    world.store(draft("fast", "m"));
    let consumer = world.attach("fast", 1);
    let delivery = world.next(consumer);
    world.ack(consumer, &delivery);
}
