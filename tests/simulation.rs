//! A whole server with its peers in the simulated world, from seeds: every role at once, peers that behave and peers that
//! do not, a loop and a network as unkind as they may be.
//!
//! `LODGER_SIM_SEEDS` multiplies the number of seeds, `LODGER_SIM_SEED` runs one alone: a failing run says which.

#[path = "simulation/deadlines.rs"]
mod deadlines;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/found.rs"]
mod found;
#[path = "simulation/handlers.rs"]
mod handlers;
#[path = "simulation/peer.rs"]
mod peer;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/stillness.rs"]
mod stillness;
#[path = "simulation/town.rs"]
mod town;
#[path = "simulation/transcript.rs"]
mod transcript;

use dice::seeds;
use lodger::sim::Chaos;
use run::{Plan, run};
use town::Mood;
use transcript::{assert_same, transcript};

const CALM: Mood = Mood { meddle: 0.05, cruel: false };
const CRUEL: Mood = Mood { meddle: 0.1, cruel: true };

const SMALL: Plan =
    Plan { peers: 8, steps: 12, chaos: Chaos::NONE, mood: CALM, rude: 0.0, contexts: 1, moves: false };

#[test]
fn with_friendly_peers_everything_arrives() {
    for seed in seeds(100) {
        run(seed, SMALL);
    }
}

#[test]
fn in_a_wild_world_with_friendly_peers_everything_arrives() {
    for seed in seeds(500) {
        run(seed, Plan { chaos: Chaos::wild(), ..SMALL });
    }
}

#[test]
fn rude_peers_and_meddling_handlers_get_what_the_books_say() {
    for seed in seeds(500) {
        run(seed, Plan { chaos: Chaos::wild(), mood: CRUEL, rude: 0.5, ..SMALL });
    }
}

#[test]
fn in_a_hostile_world_every_end_is_told() {
    for seed in seeds(500) {
        run(seed, Plan { chaos: Chaos::hostile(), mood: CRUEL, rude: 0.3, ..SMALL });
    }
}

#[test]
fn two_contexts_share_a_loop() {
    for seed in seeds(150) {
        run(seed, Plan { chaos: Chaos::wild(), mood: CRUEL, rude: 0.3, contexts: 2, peers: 12, ..SMALL });
    }
}

#[test]
fn a_context_moves_between_loops_and_loses_nothing() {
    for seed in seeds(150) {
        run(seed, Plan { chaos: Chaos::wild(), moves: true, ..SMALL });
        run(seed, Plan { chaos: Chaos::hostile(), moves: true, mood: CRUEL, rude: 0.3, ..SMALL });
    }
}

#[test]
fn hundreds_of_peers_live_in_one_loop() {
    let crowd = Plan { peers: 300, steps: 30, chaos: Chaos::wild(), rude: 0.3, ..SMALL };
    for seed in seeds(2) {
        run(seed, crowd);
        run(seed, Plan { mood: CRUEL, chaos: Chaos::hostile(), ..crowd });
    }
}

#[test]
fn a_seed_is_the_same_town_again() {
    let plan = Plan { chaos: Chaos::hostile(), mood: CRUEL, rude: 0.5, ..SMALL };
    for seed in seeds(5) {
        assert_eq!(run(seed, plan), run(seed, plan));
    }
    assert_ne!(run(1, plan), run(2, plan));
}

#[test]
fn any_chunking_gives_the_same_events() {
    for seed in seeds(200) {
        let whole = transcript(seed, Chaos::NONE, false, 60_000);
        for run in 0..3 {
            let cut = Chaos { small_buffers: 0.3 * f64::from(run), ..Chaos::wild() };
            assert_same(seed, &transcript(seed, cut, false, 60_000), &whole);
        }
    }
}

#[test]
fn any_pausing_gives_the_same_events_as_none() {
    for seed in seeds(200) {
        let straight = transcript(seed, Chaos::NONE, false, 60_000);
        assert_same(seed, &transcript(seed, Chaos::NONE, true, 60_000), &straight);
        assert_same(seed, &transcript(seed, Chaos::wild(), true, 60_000), &straight);
    }
}

#[test]
fn limits_of_time_are_kept_to_the_turn() {
    deadlines::run(1, Chaos::NONE);
    for seed in seeds(30) {
        deadlines::run(seed, Chaos::wild());
    }
}
