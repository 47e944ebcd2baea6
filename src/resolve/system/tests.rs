use super::*;
use crate::resolve::rig::Rig;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// A system that is asked what it finds: it counts the questions, and answers each when it is told to.
struct Stub {
    asked: mpsc::Receiver<Lookup>,
    answers: mpsc::Sender<Answer>,
}

fn stubbed() -> (SystemResolver, Stub) {
    let (ask, asked) = mpsc::channel();
    let (answers, answer) = mpsc::channel();
    let answer = Mutex::new(answer);
    let resolver = SystemResolver::asking(move |lookup| {
        let _ = ask.send(lookup.clone());
        answer.lock().unwrap().recv().unwrap_or(Err(ResolveError::Again))
    });
    (resolver, Stub { asked, answers })
}

impl Stub {
    /// Waits until the system is asked, and says for what.
    fn asked(&self) -> Lookup {
        self.asked.recv_timeout(Duration::from_secs(30)).expect("the system is asked")
    }

    fn answer(&self, answer: Answer) {
        self.answers.send(answer).unwrap();
    }
}

fn name(name: &str) -> Lookup {
    Lookup::Addresses(name.to_owned())
}

fn found(last: u8) -> Answer {
    Ok(Found::Addresses(vec![Ipv4Addr::new(192, 0, 2, last).into()]))
}

/// A system that finds everything, and counts.
fn counting() -> (SystemResolver, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let resolver = SystemResolver::asking(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        found(1)
    });
    (resolver, count)
}

#[test]
fn localhost_is_what_the_system_says() {
    let mut rig = Rig::new(SystemResolver::new());
    let id = rig.look_up("LocalHost");
    let Ok(Found::Addresses(addresses)) = rig.answer(id) else { panic!("no localhost") };
    assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
}

#[test]
fn what_is_no_name_is_not_looked_for() {
    let mut rig = Rig::new(SystemResolver::new());
    for text in ["a".repeat(255), "a\0b".to_owned()] {
        let id = rig.look_up(&text);
        assert!(rig.answer(id).is_err(), "{text:?}");
    }
}

#[test]
fn the_thread_starts_at_the_first_question_and_not_before() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    assert!(rig.resolver.thread.is_none());
    let id = rig.look_up(&"a".repeat(NAME_MAX + 1));
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::NotFound))));
    assert!(rig.resolver.thread.is_none() && rig.watched() == 0);

    let id = rig.look_up(&"a".repeat(NAME_MAX));
    assert!(rig.resolver.thread.is_some() && rig.watched() == 1);
    stub.asked();
    stub.answer(found(1));
    assert_eq!(rig.answer(id).unwrap(), found(1).unwrap());
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error_and_tried_again() {
    let (mut resolver, _) = counting();
    resolver.start = |_| Err(io::ErrorKind::WouldBlock.into());
    let mut rig = Rig::new(resolver);
    let id = rig.look_up("a");
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::Failed(_)))));
    assert_eq!(rig.watched(), 0);

    rig.resolver.start = start_thread;
    let id = rig.look_up("a");
    assert!(rig.answer(id).is_ok());
}

#[test]
fn one_question_answers_all_who_ask_it() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    let first = rig.look_up("a.example");
    assert_eq!(stub.asked(), name("a.example"));
    let others: Vec<LookupId> = (0..100).map(|_| rig.look_up("A.Example")).collect();
    stub.answer(found(1));
    for id in others.into_iter().chain([first]) {
        assert_eq!(rig.answer(id).unwrap(), found(1).unwrap());
    }
    assert!(stub.asked.try_recv().is_err());
}

#[test]
fn questions_beyond_the_bound_are_refused() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver.queue(3));
    let ids = ["a", "b", "c"].map(|name| rig.look_up(name));
    let id = rig.look_up("d");
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::Busy))));
    // A question that is asked already needs no room.
    let again = rig.look_up("c");
    assert!(rig.answer_so_far(again).is_none());

    stub.answer(found(1));
    assert!(rig.answer(ids[0]).is_ok());
    let id = rig.look_up("d");
    assert!(rig.answer_so_far(id).is_none());
    for last in 2..5 {
        stub.answer(found(last));
    }
    for (id, last) in [(ids[1], 2), (ids[2], 3), (again, 3), (id, 4)] {
        assert_eq!(rig.answer(id).unwrap(), found(last).unwrap());
    }
}

#[test]
fn cancelled_questions_leave_the_queue() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver.queue(2));
    let first = rig.look_up("a");
    stub.asked();
    let second = rig.look_up("b");
    rig.cancel(second);
    let third = rig.look_up("c");
    stub.answer(found(1));
    stub.answer(found(3));
    assert_eq!(rig.answer(first).unwrap(), found(1).unwrap());
    assert_eq!(rig.answer(third).unwrap(), found(3).unwrap());
    assert_eq!(stub.asked(), name("c"));
    assert!(!rig.has_answers());
}

#[test]
fn the_answer_to_a_cancelled_question_is_dropped() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    let cancelled = rig.look_up("a");
    stub.asked();
    let other = rig.look_up("a");
    rig.cancel(cancelled);
    rig.cancel(cancelled);
    stub.answer(found(1));
    assert!(rig.answer(other).is_ok());
    assert!(!rig.has_answers());

    let cancelled = rig.look_up("b");
    stub.asked();
    rig.cancel(cancelled);
    stub.answer(found(2));
    rig.turn();
    assert!(!rig.has_answers());
    // It was found nevertheless.
    let id = rig.look_up("b");
    assert_eq!(rig.answer_so_far(id).unwrap().unwrap(), found(2).unwrap());
}

#[test]
fn a_question_cancelled_and_asked_again_is_not_put_twice() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    let id = rig.look_up("a");
    stub.asked();
    rig.cancel(id);
    let id = rig.look_up("a");
    stub.answer(found(1));
    assert!(rig.answer(id).is_ok());
    let id = rig.look_up("b");
    stub.answer(found(2));
    assert!(rig.answer(id).is_ok());
    assert_eq!(stub.asked(), name("b"));
}

#[test]
fn answers_are_kept_until_they_expire() {
    let (resolver, count) = counting();
    let mut rig = Rig::new(resolver.keep_found(Duration::from_secs(10)));
    let ask = |rig: &mut Rig<SystemResolver>| {
        let id = rig.look_up("a");
        assert!(rig.answer(id).is_ok());
        count.load(Ordering::Relaxed)
    };
    assert_eq!(ask(&mut rig), 1);
    rig.advance(Duration::from_millis(9_999));
    assert_eq!(ask(&mut rig), 1);
    rig.advance(Duration::from_millis(1));
    assert_eq!(ask(&mut rig), 2);
    assert!(rig.due.is_none());
}

#[test]
fn that_there_is_no_such_name_is_kept_for_a_time_of_its_own() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    let id = rig.look_up("a");
    stub.answer(Err(ResolveError::NotFound));
    assert!(matches!(rig.answer(id), Err(ResolveError::NotFound)));
    rig.advance(Duration::from_millis(1_999));
    let id = rig.look_up("a");
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::NotFound))));
    rig.advance(Duration::from_millis(1));
    let id = rig.look_up("a");
    assert!(rig.answer_so_far(id).is_none());
}

#[test]
fn failures_are_not_kept() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    for error in [ResolveError::Again, io::Error::other("x").into()] {
        stub.answer(Err(error));
        let id = rig.look_up("a");
        assert!(rig.answer(id).is_err());
        stub.asked();
    }
    stub.answer(found(1));
    let id = rig.look_up("a");
    assert!(rig.answer(id).is_ok());
}

#[test]
fn the_answers_that_expire_first_make_room() {
    let (resolver, count) = counting();
    let mut rig = Rig::new(resolver.keep(2));
    for name in ["a", "b", "c"] {
        let id = rig.look_up(name);
        assert!(rig.answer(id).is_ok());
        rig.advance(Duration::from_secs(1));
    }
    assert_eq!(rig.resolver.cache.answers.len(), 2);
    for (name, asked) in [("b", 3), ("c", 3), ("a", 4)] {
        let id = rig.look_up(name);
        assert!(rig.answer(id).is_ok());
        assert_eq!(count.load(Ordering::Relaxed), asked, "{name}");
    }
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    for (off, asked) in [
        (SystemResolver::keep as fn(SystemResolver, usize) -> SystemResolver, 0),
        (|resolver, _| resolver.keep_found(Duration::ZERO), 0),
    ] {
        let (resolver, count) = counting();
        let mut rig = Rig::new(off(resolver, asked));
        for times in 1..4 {
            let id = rig.look_up("a");
            assert!(rig.answer(id).is_ok());
            assert_eq!(count.load(Ordering::Relaxed), times);
        }
    }
}

#[test]
fn a_time_beyond_the_clock_is_for_ever() {
    let (resolver, count) = counting();
    let mut rig = Rig::new(resolver.keep_found(Duration::MAX));
    for _ in 0..2 {
        let id = rig.look_up("a");
        assert!(rig.answer(id).is_ok());
        rig.advance(Duration::from_secs(1_000_000));
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panic_is_an_answer() {
    let mut rig = Rig::new(SystemResolver::asking(|lookup| match lookup {
        Lookup::Addresses(name) if name == "bad" => panic!("as the standard library may"),
        _ => found(1),
    }));
    let bad = rig.look_up("bad");
    assert!(matches!(rig.answer(bad), Err(ResolveError::Failed(_))));
    let good = rig.look_up("good");
    assert!(rig.answer(good).is_ok());
}

#[test]
fn dropping_does_not_wait_for_the_system_and_ends_the_thread() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    rig.look_up("a");
    rig.look_up("b");
    assert_eq!(stub.asked(), name("a"));
    drop(rig);
    // Only then does the system answer. The thread asks nothing more, and lets go of what it held.
    stub.answer(found(1));
    let ended = stub.asked.recv_timeout(Duration::from_secs(30));
    assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn an_idle_thread_ends_with_the_resolver() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    let id = rig.look_up("a");
    stub.answer(found(1));
    assert!(rig.answer(id).is_ok());
    stub.asked();
    drop(rig);
    let ended = stub.asked.recv_timeout(Duration::from_secs(30));
    assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn words_of_the_system_tell_what_is_wrong() {
    let said =
        |words: &str| refused(io::Error::other(format!("failed to lookup address information: {words}")));
    for words in [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "nodename nor servname provided, or not known",
    ] {
        assert!(matches!(said(words), ResolveError::NotFound), "{words}");
    }
    for words in
        ["Temporary failure in name resolution", "Try again", "Name could not be resolved at this time"]
    {
        assert!(matches!(said(words), ResolveError::Again), "{words}");
    }
    let other = said("Der Name oder der Dienst ist nicht bekannt");
    assert!(other.to_string().ends_with("nicht bekannt"), "{other}");
    let system = refused(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()));
    assert!(matches!(system, ResolveError::Failed(error) if error.raw_os_error().is_some()));
}

#[cfg(not(feature = "peer-names"))]
#[test]
fn names_of_addresses_need_a_feature() {
    let mut rig = Rig::new(SystemResolver::new());
    let id = rig.begin(Lookup::Name(Ipv4Addr::LOCALHOST.into()));
    assert!(matches!(rig.answer_so_far(id), Some(Err(ResolveError::Unsupported))));
}

#[cfg(feature = "peer-names")]
#[test]
fn addresses_have_names() {
    let mut rig = Rig::new(SystemResolver::new());
    // Where a machine has no name for it, the answer is an error.
    let id = rig.begin(Lookup::Name(Ipv4Addr::LOCALHOST.into()));
    match rig.answer(id) {
        Ok(Found::Name(name)) => assert!(!name.is_empty() && name.parse::<IpAddr>().is_err(), "{name}"),
        other => assert!(matches!(other, Err(ResolveError::NotFound | ResolveError::Again)), "{other:?}"),
    }
}

#[test]
fn a_resolver_that_is_abandoned_asks_for_no_lock() {
    let (mut resolver, stub) = stubbed();
    let (mut actions, mut random) = (Vec::new(), |_: &mut [u8]| {});
    let mut hands = Hands::new(crate::env::system_now(), &mut random, &mut actions);
    resolver.look_up(LookupId::new(1), &name("example"), &mut hands);
    stub.asked();
    let desk = resolver.thread.as_ref().map(|thread| thread.desk.clone()).expect("it was started");
    let held = desk.lock();
    Box::new(resolver).abandon();
    drop(held);
    desk.close();
}

#[test]
fn what_was_asked_is_asked_again_once_a_child_has_taken_over() {
    let (resolver, stub) = stubbed();
    let mut rig = Rig::new(resolver);
    let id = rig.look_up("example");
    assert_eq!(stub.asked(), name("example"));
    let desk = rig.resolver.thread.as_ref().map(|thread| thread.desk.clone()).expect("it was started");
    // As if the thread were not there any more, and had it locked.
    let held = desk.lock();
    rig.call(|resolver, hands| resolver.take_over(hands));
    assert_eq!(stub.asked(), name("example"));
    drop(held);
    stub.answer(found(1));
    stub.answer(found(2));
    let Ok(Found::Addresses(addresses)) = rig.answer(id) else { panic!("it was found") };
    assert_eq!(addresses, [IpAddr::from([192, 0, 2, 2])]);
    desk.close();
}

#[test]
fn a_child_that_takes_over_begins_a_thread_when_it_asks_and_not_before() {
    let (resolver, count) = counting();
    let mut rig = Rig::new(resolver);
    let id = rig.look_up("first");
    assert!(rig.answer(id).is_ok());
    let desk = rig.resolver.thread.as_ref().map(|thread| thread.desk.clone()).expect("it was started");
    rig.call(|resolver, hands| resolver.take_over(hands));
    assert!(rig.resolver.thread.is_none());
    let id = rig.look_up("first");
    assert!(matches!(rig.answer_so_far(id), Some(Ok(_))), "what was known is known");
    let id = rig.look_up("second");
    assert!(rig.answer(id).is_ok());
    assert_eq!(count.load(Ordering::Relaxed), 2);
    desk.close();
}

#[test]
fn without_a_thread_what_was_asked_is_answered_with_the_reason_once_a_child_has_taken_over() {
    let (mut resolver, stub) = stubbed();
    let (mut actions, mut random) = (Vec::new(), |_: &mut [u8]| {});
    let mut hands = Hands::new(crate::env::system_now(), &mut random, &mut actions);
    resolver.look_up(LookupId::new(1), &name("example"), &mut hands);
    stub.asked();
    let desk = resolver.thread.as_ref().map(|thread| thread.desk.clone()).expect("it was started");
    resolver.start = |_| Err(io::ErrorKind::OutOfMemory.into());
    resolver.take_over(&mut hands);
    assert!(resolver.thread.is_none() && resolver.waiting.is_empty());
    let answered = actions.iter().any(|action| {
        matches!(action, crate::resolve::Action::Answer(id, Err(ResolveError::Failed(_))) if *id == LookupId::new(1))
    });
    assert!(answered, "{actions:?}");
    desk.close();
}
