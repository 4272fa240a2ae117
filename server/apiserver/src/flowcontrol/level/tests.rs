use super::*;
use crate::flowcontrol::metrics::FlowMetrics;
use crate::flowcontrol::queues::Shape;
use crate::flowcontrol::shares::Share;
use crate::metrics::Metrics;

fn level(seats: u32, shape: Shape) -> (Arc<Level>, Arc<SchemaMetrics>) {
    let share = Share { is_exempt: false, shares: 1, lendable_percent: 0, borrowing_percent: None };
    let spec = LevelSpec { name: "l".to_owned(), uid: String::new(), share, shape };
    let bounds = Bounds { nominal: seats, lower: seats, upper: seats };
    let metrics = FlowMetrics::new(Metrics::new().inflight, [1, 1]).schema("s", "l");
    (Arc::new(Level::new(spec, bounds)), Arc::new(metrics))
}

const SHAPE: Shape = Shape { queues: 4, hand: 2, length: 100 };

fn in_use(level: &Level) -> (u64, (usize, usize)) {
    level.inspect(|state, _| (state.queues.seats_in_use(), state.queues.requests()))
}

fn enter(level: &Arc<Level>, metrics: &Arc<SchemaMetrics>) -> Entry {
    level.enter(0, Work::ONE, RequestKind::ReadOnly, metrics)
}

#[tokio::test(start_paused = true)]
async fn a_seat_that_is_granted_to_a_client_that_goes_away_comes_back() {
    let (level, metrics) = level(1, Shape { queues: 1, hand: 1, length: 10 });
    let Entry::Seated(first) = enter(&level, &metrics) else { panic!("a seat is free") };
    let (Entry::Waiting(left), Entry::Waiting(granted), Entry::Waiting(last)) =
        (enter(&level, &metrics), enter(&level, &metrics), enter(&level, &metrics))
    else {
        panic!("they wait")
    };
    drop(left);
    assert_eq!(in_use(&level), (1, (1, 2)), "it left its queue");
    drop(first);
    assert_eq!(in_use(&level), (1, (1, 1)), "the next one has the seat, and was not polled since");
    drop(granted);
    assert_eq!(in_use(&level), (1, (1, 0)), "the seat went on to the last one");
    drop(last.wait(Duration::from_secs(1)).await.unwrap());
    assert_eq!(in_use(&level), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_he_may() {
    let (level, metrics) = level(1, SHAPE);
    let Entry::Seated(first) = enter(&level, &metrics) else { panic!("a seat is free") };
    let Entry::Waiting(pending) = enter(&level, &metrics) else { panic!("it waits") };
    let before = Instant::now();
    assert_eq!(pending.wait(Duration::from_secs(15)).await.unwrap_err(), Refusal::TimedOut);
    assert_eq!((before.elapsed(), in_use(&level)), (Duration::from_secs(15), (1, (1, 0))));
    drop(first);
    assert!(matches!(enter(&level, &metrics), Entry::Seated(_)));
}

#[tokio::test(start_paused = true)]
async fn seats_of_a_change_wake_who_waits_when_they_come_back() {
    let (level, metrics) = level(1, SHAPE);
    let change = Work { seats: 1, final_seats: 1, extra: Duration::from_millis(5) };
    let Entry::Seated(first) = level.enter(0, change, RequestKind::Mutating, &metrics) else { panic!("a seat is free") };
    let Entry::Waiting(pending) = enter(&level, &metrics) else { panic!("it waits") };
    drop(first);
    let before = Instant::now();
    let seat = pending.wait(Duration::from_secs(15)).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(5) && before.elapsed() < Duration::from_millis(50), "{:?}", before.elapsed());
    drop(seat);
}

/// Tasks are aborted wherever they are: before their first poll, while they wait, just after they were granted a seat, while they run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_seat_is_lost_wherever_a_request_ends() {
    let (level, metrics) = level(3, SHAPE);
    for round in 0..40_u64 {
        let tasks: Vec<_> = (0..60_u64)
            .map(|number| {
                let (level, metrics) = (level.clone(), metrics.clone());
                tokio::spawn(async move {
                    let work = Work { seats: 1 + u32::from(number % 3 == 0), ..Work::ONE };
                    let seat = match level.enter(number, work, RequestKind::ReadOnly, &metrics) {
                        Entry::Seated(seat) => seat,
                        Entry::Waiting(pending) => match pending.wait(Duration::from_millis(20)).await {
                            Ok(seat) => seat,
                            Err(_) => return,
                        },
                        Entry::Refused(_) => return,
                    };
                    tokio::time::sleep(Duration::from_micros(200 * (number % 5))).await;
                    drop(seat);
                })
            })
            .collect();
        for (number, task) in (0_u64..).zip(&tasks) {
            if (number + round) % 3 == 0 {
                tokio::task::yield_now().await;
                task.abort();
            }
        }
        for task in tasks {
            let _ = task.await;
        }
        assert_eq!(in_use(&level), (0, (0, 0)), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_level_that_gets_more_seats_or_becomes_exempt_lets_go_what_waits() {
    let (level, metrics) = level(1, SHAPE);
    let Entry::Seated(_first) = enter(&level, &metrics) else { panic!("a seat is free") };
    let waiting: Vec<Pending> = (0..4)
        .map(|_| match enter(&level, &metrics) {
            Entry::Waiting(pending) => pending,
            other => panic!("{other:?}"),
        })
        .collect();
    level.set_limit(Limit { target: 2.0, seats: 2 });
    assert_eq!(in_use(&level), (2, (2, 3)));
    let (mut spec, bounds) = level.inspect(|state, _| (state.spec.clone(), state.bounds));
    spec.share.is_exempt = true;
    level.configure(spec, bounds);
    assert_eq!(in_use(&level), (5, (5, 0)));
    drop(waiting);
    assert_eq!(in_use(&level), (1, (1, 0)));
}
