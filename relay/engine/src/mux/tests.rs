use std::time::Duration;

use relay_wire::cell::{BODY_BYTES, CircIdWidth, Command};

use super::favour::Favour;
use super::pool::{CHUNK_CELLS, SPARE_CHUNKS_MAX};
use super::queue::Full;
use super::*;

fn body(mark: u8) -> [u8; BODY_BYTES] {
    [mark; BODY_BYTES]
}

impl Queues<usize> for [Queue; 2] {
    fn queue(&mut self, seat: usize) -> Option<(&mut Queue, u32)> {
        self.get_mut(seat).map(|queue| (queue, seat as u32 + 1))
    }
}

const HALFLIFE: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> (CircIdWidth, Worth) {
    (CircIdWidth::Four, Worth::at(Duration::from_secs(seconds), HALFLIFE))
}

/// Two circuits, and who of them is served.
struct Two {
    pool: Pool,
    queues: [Queue; 2],
    round: Round<usize>,
}

impl Two {
    fn new() -> Self {
        Self {
            pool: Pool::new(),
            queues: [Queue::new(), Queue::new()],
            round: Round::new(),
        }
    }

    fn push(&mut self, seat: usize, cells: usize) {
        let queue = &mut self.queues[seat];
        for _ in 0..cells {
            queue.push(&mut self.pool, 100_000, Command::RELAY, &body(1)).unwrap();
        }
        if queue.enters_round() {
            self.round.enter(seat, queue.favour());
        }
    }

    /// The circuits of the next cells, in order.
    fn serve(&mut self, seconds: u64, cells: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let room = cells * 514 + 100;
        self.round
            .serve(&mut self.pool, &mut self.queues, &mut out, room, at(seconds));
        out.chunks(514).map(|cell| cell[3] - 1).collect()
    }
}

#[test]
fn who_has_sent_less_goes_first_however_much_the_other_has_to_say() {
    let mut two = Two::new();
    two.push(0, 1_000);
    assert_eq!(two.serve(1, 500), vec![0; 500]);
    two.push(1, 3);
    assert_eq!(two.serve(1, 5), vec![1, 1, 1, 0, 0]);
    two.push(1, 1);
    assert_eq!(two.serve(2, 3), vec![1, 0, 0]);
}

#[test]
fn equals_share_alike() {
    let mut two = Two::new();
    two.push(0, 400);
    two.push(1, 400);
    let served = two.serve(1, 400);
    let ones = served.iter().filter(|seat| **seat == 1).count();
    assert!((196..=204).contains(&ones), "{ones} of 400");
    let longest = served.chunk_by(|one, other| one == other).map(<[u8]>::len).max();
    assert!(longest <= Some(20), "{longest:?} in a row");
}

#[test]
fn what_was_sent_long_ago_counts_no_more() {
    let mut two = Two::new();
    two.push(0, 1_000);
    two.serve(1, 1_000);
    // Twenty half-lives later its thousand cells weigh less than a hundred fresh ones.
    two.push(1, 100);
    two.serve(601, 100);
    two.push(0, 10);
    two.push(1, 10);
    assert_eq!(two.serve(601, 10), vec![0; 10]);
}

#[test]
fn figures_stay_right_when_an_age_ends() {
    let age = 512 * 30;
    for seconds in [age - 1, 5 * age - 1, 1_000 * age - 1] {
        let mut two = Two::new();
        two.push(0, 300);
        two.serve(seconds, 200);
        two.push(1, 50);
        assert_eq!(two.serve(seconds + 2, 50), vec![1; 50], "before and after {seconds}");
        two.push(1, 100);
        assert_eq!(two.serve(seconds + 3, 100), vec![1; 100]);
        assert!(two.queues.iter().all(|queue| queue.favour.sent.is_finite()));
    }
}

#[test]
fn a_full_queue_takes_no_more_and_gives_its_memory_back() {
    let mut pool = Pool::new();
    let mut queue = Queue::new();
    let cells_max = (CHUNK_CELLS * (SPARE_CHUNKS_MAX + 5)) as u32;
    for _ in 0..cells_max {
        queue.push(&mut pool, cells_max, Command::RELAY, &body(1)).unwrap();
    }
    assert_eq!(queue.push(&mut pool, cells_max, Command::RELAY, &body(1)), Err(Full));
    queue.clear(&mut pool);
    assert_eq!(pool.cells_waiting(), 0);
    assert_eq!(pool.chunks.iter().flatten().count(), SPARE_CHUNKS_MAX);
    for round in 0..3_u8 {
        for _ in 0..cells_max {
            queue.push(&mut pool, cells_max, Command::RELAY, &body(round)).unwrap();
        }
        let mut out = Vec::new();
        while queue.pop_into(&mut pool, &mut out, CircIdWidth::Two, 7) {}
        assert_eq!(out.len(), cells_max as usize * 512);
        assert!(out.chunks(512).all(|cell| cell[3] == round));
    }
}

#[test]
fn names_of_dead_circuits_do_not_pile_up() {
    let mut round = Round::new();
    for seat in 0..10_000 {
        round.enter(seat, Favour::default());
        round.left(|_| false);
    }
    assert!(round.waiting.len() < 100);
}

#[test]
fn a_cell_that_could_not_be_made_takes_no_place() {
    let mut two = Two::new();
    two.push(0, 1);
    let (pool, queue) = (&mut two.pool, &mut two.queues[0]);
    let refused = queue.push_made(pool, 100, Command::RELAY, |room| {
        room.fill(7);
        Err::<(), _>("not today")
    });
    assert_eq!(refused, Ok(Err("not today")));
    assert_eq!((queue.len(), pool.cells_waiting()), (1, 1));
    let again = queue.push_made(pool, 1, Command::RELAY, |_| Ok::<_, ()>(()));
    assert_eq!(again, Err(Full), "what is full is not even asked to make one");
    queue.push(pool, 100, Command::RELAY, &body(2)).unwrap();
    let mut out = Vec::new();
    two.round.serve(&mut two.pool, &mut two.queues, &mut out, 2_000, at(0));
    let bodies: Vec<u8> = out.chunks(514).map(|cell| cell[400]).collect();
    assert_eq!(bodies, [1, 2]);
}
