#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]

use std::collections::BTreeMap;

use super::*;

const SHAPE: Shape = Shape { queues: 16, hand: 4, length: 50 };

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A number for a flow, as a hash would give it.
fn hash(flow: u64) -> u64 {
    flow.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn wide(seats: u32) -> Work {
    Work { seats, ..Work::ONE }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn what_fits_runs_and_what_does_not_waits_in_order() {
    let mut queues = Queues::new(Shape { queues: 1, hand: 1, length: 2 }, 1);
    let Arrival::Runs(first) = queues.arrive(millis(0), 7, Work::ONE, || 0) else { panic!("a seat is free") };
    for (number, length) in [(1, 1), (2, 2)] {
        let arrival = queues.arrive(millis(0), 7, Work::ONE, || number);
        assert!(matches!(arrival, Arrival::Waits(_, at) if at == length), "{arrival:?}");
    }
    assert_eq!(queues.arrive(millis(0), 7, Work::ONE, || 3), Arrival::Refused(Refusal::QueueFull));
    assert_eq!(queues.next(millis(1)), None);
    queues.finish(millis(2), first);
    assert_eq!((queues.next(millis(2)), queues.next(millis(2))), (Some(1), None));

    let mut none: Queues<()> = Queues::new(Shape::default(), 1);
    assert!(matches!(none.arrive(millis(0), 7, Work::ONE, || ()), Arrival::Runs(_)));
    assert_eq!(none.arrive(millis(0), 7, Work::ONE, || ()), Arrival::Refused(Refusal::NoSeats));
}

#[test]
fn a_request_that_is_wider_than_its_level_runs_alone() {
    let mut queues = Queues::new(SHAPE, 4);
    let Arrival::Runs(narrow) = queues.arrive(millis(0), hash(1), Work::ONE, || 0) else { panic!() };
    assert!(matches!(queues.arrive(millis(0), hash(2), wide(10), || 1), Arrival::Waits(..)));
    assert_eq!(queues.next(millis(0)), None);
    queues.finish(millis(1), narrow);
    assert_eq!(queues.next(millis(1)), Some(1));
    assert!(matches!(queues.arrive(millis(1), hash(1), Work::ONE, || 2), Arrival::Waits(..)));
    assert_eq!(queues.next(millis(1)), None);
}

#[test]
fn seats_of_a_change_come_back_when_its_watchers_were_told() {
    let mut queues = Queues::new(SHAPE, 1);
    let change = Work { seats: 1, final_seats: 1, extra: millis(5) };
    let Arrival::Runs(slot) = queues.arrive(millis(0), 0, change, || 0) else { panic!() };
    queues.finish(millis(10), slot);
    assert!(matches!(queues.arrive(millis(11), 0, Work::ONE, || 1), Arrival::Waits(..)));
    assert_eq!((queues.next(millis(14)), queues.wake_at()), (None, Some(millis(15))));
    assert_eq!((queues.next(millis(15)), queues.wake_at()), (Some(1), None));
}

#[test]
fn a_request_that_leaves_is_served_no_more_and_one_that_runs_cannot_leave() {
    let mut queues = Queues::new(SHAPE, 1);
    let Arrival::Runs(first) = queues.arrive(millis(0), 0, Work::ONE, || 0) else { panic!() };
    let Arrival::Waits(second, _) = queues.arrive(millis(0), 0, Work::ONE, || 1) else { panic!() };
    let Arrival::Waits(third, _) = queues.arrive(millis(0), 0, Work::ONE, || 2) else { panic!() };
    assert!(queues.cancel(millis(1), second) && !queues.cancel(millis(1), second));
    queues.finish(millis(2), first);
    assert_eq!(queues.next(millis(2)), Some(2));
    assert!(!queues.cancel(millis(3), third), "it runs");
    queues.finish(millis(3), third.slot(millis(2)));
    assert_eq!((queues.seats_demanded(), queues.requests(), queues.in_use().count()), (0, (0, 0), 0));
}

/// Any order of arrivals, ends and departures: no more seats than there are, nobody waits for a seat that is free, and in the end
/// nothing is left.
#[test]
fn no_seat_is_lost_or_given_twice() {
    for seed in 1..=200 {
        let mut random = Random(seed);
        let limit = 1 + random.below(8) as u32;
        let mut queues: Queues<u64> = Queues::new(Shape { queues: 8, hand: 3, length: 5 }, limit);
        let mut now = Duration::ZERO;
        let (mut running, mut waiting): (Vec<Slot>, BTreeMap<u64, Ticket>) = (Vec::new(), BTreeMap::new());
        for number in 0..600_u64 {
            now += Duration::from_micros(random.below(3000));
            match random.below(5) {
                0..=1 => {
                    let work =
                        Work { seats: 1 + random.below(4) as u32, final_seats: random.below(3) as u32, extra: millis(random.below(6)) };
                    match queues.arrive(now, hash(random.below(6)), work, || number) {
                        Arrival::Runs(slot) => running.push(slot),
                        Arrival::Waits(ticket, _) => drop(waiting.insert(number, ticket)),
                        Arrival::Refused(refusal) => assert_eq!(refusal, Refusal::QueueFull),
                    }
                }
                2..=3 if !running.is_empty() => {
                    let slot = running.swap_remove(random.below(running.len() as u64) as usize);
                    queues.finish(now, slot);
                }
                _ => {
                    if let Some((_, ticket)) = waiting.pop_first() {
                        assert!(queues.cancel(now, ticket), "seed {seed}: it waits");
                    }
                }
            }
            while let Some(next) = queues.next(now) {
                running.push(waiting.remove(&next).unwrap().slot(now));
            }
            let widest = running.iter().map(Slot::seats).max().unwrap_or(0).max(10);
            assert!(queues.seats_in_use() <= u64::from(limit.max(widest)), "seed {seed}: {} seats of {limit}", queues.seats_in_use());
            assert_eq!(queues.requests(), (running.len(), waiting.len()), "seed {seed}");
            assert!(waiting.is_empty() || queues.seats_in_use() > 0, "seed {seed}: one waits for nothing");
        }
        for slot in running {
            queues.finish(now, slot);
        }
        now += millis(10);
        while let Some(next) = queues.next(now) {
            let slot = waiting.remove(&next).unwrap().slot(now);
            queues.finish(now, slot);
            now += millis(10);
        }
        assert!(waiting.is_empty(), "seed {seed}: everybody is served");
        queues.change(now, SHAPE, 1);
        assert_eq!((queues.seats_demanded(), queues.in_use().count()), (0, 0), "seed {seed}: nothing is left");
    }
}

/// Flows that each keep so many requests of so many seats coming, each of which takes so long. The seat seconds that each had, and the
/// longest wait.
fn compete(flows: &[(usize, u32, u64)], limit: u32, secs: u64) -> Vec<(f64, Duration)> {
    let mut queues: Queues<(usize, Duration)> = Queues::new(Shape { queues: 64, hand: 6, length: 500 }, limit);
    let mut had = vec![(0.0, Duration::ZERO); flows.len()];
    let mut running: Vec<(Duration, usize, Slot)> = Vec::new();
    let mut tickets: BTreeMap<(usize, u32, u64), Ticket> = BTreeMap::new();
    let mut inside = vec![0_usize; flows.len()];
    for step in 0..secs * 1000 {
        let now = millis(step);
        let (ended, going): (Vec<_>, Vec<_>) = running.into_iter().partition(|(until, ..)| *until <= now);
        running = going;
        for (_, flow, slot) in ended {
            had[flow].0 += f64::from(slot.seats()) * (flows[flow].2 as f64 / 1000.0);
            inside[flow] -= 1;
            queues.finish(now, slot);
        }
        for (flow, (keeps, seats, takes)) in flows.iter().enumerate() {
            while inside[flow] < *keeps {
                inside[flow] += 1;
                match queues.arrive(now, hash(flow as u64), wide(*seats), || (flow, now)) {
                    Arrival::Runs(slot) => running.push((now + millis(*takes), flow, slot)),
                    Arrival::Waits(ticket, _) => drop(tickets.insert((flow, ticket.queue, ticket.number), ticket)),
                    Arrival::Refused(refusal) => panic!("{refusal:?}"),
                }
            }
        }
        while let Some((flow, since)) = queues.next(now) {
            // Requests of one flow are alike, so any ticket of the queue that was served will do.
            let key = tickets.keys().find(|(of, queue, _)| *of == flow && *queue == queues.last_served).copied().unwrap();
            let slot = tickets.remove(&key).unwrap().slot(now);
            running.push((now + millis(flows[flow].2), flow, slot));
            had[flow].1 = had[flow].1.max(now.saturating_sub(since));
        }
    }
    had
}

#[test]
fn an_elephant_does_not_starve_a_mouse() {
    // 300 requests at once against one at a time, 10 seats, 20 ms each.
    let had = compete(&[(300, 1, 20), (1, 1, 20)], 10, 20);
    let [(elephant, _), (mouse, longest)] = had[..] else { panic!() };
    assert!(elephant > 150.0, "the elephant has what is left: {elephant}");
    // Alone the mouse would have 20 seat seconds.
    assert!(mouse > 8.0 && longest < millis(100), "the mouse had {mouse} seat seconds and waited {longest:?}");
}

#[test]
fn flows_that_want_more_than_there_is_get_the_same() {
    // Of the same seat seconds, one flow takes few wide and long ones, the other many narrow and short ones.
    let had = compete(&[(100, 1, 5), (20, 4, 40)], 8, 40);
    let [(narrow, _), (wide, _)] = had[..] else { panic!() };
    let (all, ratio) = (narrow + wide, narrow / wide);
    assert!(all > 250.0, "nearly all of 320 seat seconds are used: {all}");
    assert!((0.3..3.5).contains(&ratio), "{narrow} to {wide}");
}
