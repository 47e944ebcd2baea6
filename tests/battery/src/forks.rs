//! What becomes of a context when its process forks: beside a child that ends, and in one that goes on in its parent's place.
//!
//! Each case runs in a process that is started for it, without threads of its own, and forks there.

use super::client::{Client, UPGRADE};
use lodger::resolve::Lookup;
use lodger::{Context, Cx, Decision, Io, Listen, PostError, Remote, Request, Site, ws};
use std::cell::Cell;
use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

/// A loop with one context in it.
pub trait Forks: Sized {
    /// Moves the context in. Where the loop keeps the state of its handlers, it keeps a clone of `talks`.
    fn new(context: Context<Talks>, talks: &Talks) -> Self;

    /// Runs until `done`, which is asked between turns. The context stays in the loop.
    fn run_until(&mut self, talks: &mut Talks, done: impl Fn(&Talks) -> bool);

    /// In a child that goes on.
    ///
    /// # Errors
    ///
    /// What the adapter says.
    fn take_over(&mut self) -> io::Result<()>;

    /// In the parent of a child that goes on.
    fn abandon(self);

    /// Loop and context are dropped, in whichever process.
    fn end(self) {}
}

/// One test for each case, for a loop that [`Forks`].
#[macro_export]
macro_rules! forks {
    ($adapter:ty) => {
        $crate::forks!($adapter:
            child_that_ends_leaves_its_parents_connections_alone
            child_that_takes_over_serves_what_its_parent_had
            child_that_takes_over_serves_beside_a_parent_that_has_abandoned
        );
    };
    ($adapter:ty: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                if $crate::forks::in_own_process(concat!(module_path!(), "::", stringify!($case))) {
                    $crate::forks::$case::<$adapter>();
                }
            }
        )*
    };
}

/// What handlers have heard; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Talks(Rc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    open: Cell<usize>,
    messages: Cell<usize>,
    timers: Cell<usize>,
    posted: Cell<usize>,
    to_fork: Cell<bool>,
    to_end: Cell<bool>,
}

fn add_one(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

/// Does what it is told.
struct Talk;

/// How long a timer runs: it is still armed when the process forks.
const TIMER: Duration = Duration::from_millis(50);

impl ws::Handler<Talks> for Talk {
    fn opened(&mut self, cx: &mut Cx<'_, Talks>, _: &Request<'_>) {
        add_one(&cx.data.0.open);
    }

    fn message(&mut self, cx: &mut Cx<'_, Talks>, message: ws::Message<'_>) {
        let ws::Message::Text(text) = message else { return };
        let heard = Rc::clone(&cx.data.0);
        add_one(&heard.messages);
        let answer = match text {
            "fork" => return heard.to_fork.set(true),
            "end" => return heard.to_end.set(true),
            "timer" => return cx.conn().set_timer(TIMER),
            "posted" => heard.posted.get().to_string(),
            "process" => std::process::id().to_string(),
            text => match text.strip_prefix("look up ") {
                Some(name) => return look_up(cx, name),
                None => text.to_owned(),
            },
        };
        assert!(cx.send(answer.as_str()).is_ok());
    }

    fn timer(&mut self, cx: &mut Cx<'_, Talks>) {
        add_one(&cx.data.0.timers);
        assert!(cx.send("timer").is_ok());
    }
}

/// Whether there is such a name does not matter, that there is an answer does.
fn look_up(cx: &mut Cx<'_, Talks>, name: &str) {
    let id = cx.id();
    cx.io.look_up(Lookup::Addresses(name.to_owned()), move |_, _, io| {
        let answered = io.conn(id).map(|mut conn| conn.send("answered").is_ok());
        assert_ne!(answered, Some(false));
    });
}

/// A name that nobody has and that no name server is asked for, since one of its labels is too long.
fn nobody(first: char) -> String {
    format!("{first}{}.invalid", "x".repeat(70))
}

fn serving(listen: Listen) -> (Context<Talks>, SocketAddr) {
    let mut context = Context::new();
    let accept = |_: &Request<'_>, _: &mut Talks, _: &mut Io<Talks>| Decision::websocket(Talk);
    let io = context.io();
    let site = io.add_site(Site::new().protocol("", accept)).expect("a site that can serve");
    let listener = io.listen(listen, site).expect("a port is free");
    let address = io.local_addr(listener).and_then(|address| address.inet()).expect("TCP");
    (context, address)
}

fn said(client: &mut Client) -> String {
    String::from_utf8(client.message()).expect("text")
}

fn is_forked<T>(result: Result<(), PostError<T>>) -> bool {
    matches!(result, Err(PostError::Forked(_)))
}

/// Says that nothing is heard of what this process posts.
fn assert_unheard(remote: &Remote<Talks>) {
    assert!(is_forked(remote.post(|talks, _| add_one(&talks.0.posted))));
    assert!(is_forked(remote.wake()));
    assert_eq!(remote.waiting(), 0);
}

fn post(remote: &Remote<Talks>) {
    assert!(remote.post(|talks, _| add_one(&talks.0.posted)).is_ok());
}

/// A child says that it cannot post, drops loop and context, and ends. The parent's connections, timers, listeners and wake-up
/// do not notice.
pub fn child_that_ends_leaves_its_parents_connections_alone<A: Forks>() {
    let (mut context, address) = serving(Listen::tcp(([127, 0, 0, 1], 0)));
    let remote = context.remote().expect("descriptors are left");
    let mut talks = Talks::default();
    let mut own = Some(A::new(context, &talks));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(UPGRADE);
    }
    let run = |own: &mut Option<A>, talks: &mut Talks, done: &dyn Fn(&Heard) -> bool| {
        own.as_mut().expect("it is this process's").run_until(talks, |talks| done(&talks.0));
    };
    run(&mut own, &mut talks, &|heard| heard.open.get() == 3);
    for client in &mut clients {
        client.upgraded();
        client.text("timer");
    }
    run(&mut own, &mut talks, &|heard| heard.messages.get() == 3);

    ended(fork(|| {
        assert_unheard(&remote);
        own.take().expect("it was there before the fork").end();
        assert_unheard(&remote);
    }));

    run(&mut own, &mut talks, &|heard| heard.timers.get() == 3);
    for client in &mut clients {
        assert_eq!(said(client), "timer");
        client.text("still there?");
    }
    run(&mut own, &mut talks, &|heard| heard.messages.get() == 6);
    for client in &mut clients {
        assert_eq!(said(client), "still there?");
    }
    post(&remote);
    run(&mut own, &mut talks, &|heard| heard.posted.get() == 1);
    let mut another = Client::connect(address);
    another.send(UPGRADE);
    run(&mut own, &mut talks, &|heard| heard.open.get() == 4);
    own.take().expect("it is this process's").end();
}

/// A server daemonises: the child goes on with its listener, its connections, its timers, names and posts, and the parent exits.
pub fn child_that_takes_over_serves_what_its_parent_had<A: Forks>() {
    taken_over::<A>(|_| ());
}

/// The same, while the parent lives on, and has nothing to do with it any more.
pub fn child_that_takes_over_serves_beside_a_parent_that_has_abandoned<A: Forks>() {
    taken_over::<A>(ended);
}

fn taken_over<A: Forks>(parent: impl FnOnce(libc::pid_t)) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let server = fork(|| {
        let own = listener.try_clone().expect("descriptors are left");
        parent(serve_and_fork::<A>(Listen::descriptor(own.into())));
    });
    drop(listener);
    let mut client = Client::connect(address);
    client.send(UPGRADE);
    client.upgraded();
    client.text("process");
    assert_eq!(said(&mut client), server.to_string());
    client.text(&format!("look up {}", nobody('a')));
    assert_eq!(said(&mut client), "answered");

    client.text("timer");
    client.text(&format!("look up {}", nobody('b')));
    client.text("fork");
    let mut both = [said(&mut client), said(&mut client)];
    both.sort();
    assert_eq!(both, ["answered", "timer"]);
    client.text("process");
    assert_ne!(said(&mut client), server.to_string());
    client.text(&format!("look up {}", nobody('c')));
    assert_eq!(said(&mut client), "answered");
    client.text("posted");
    assert_eq!(said(&mut client), "2");
    client.text("timer");
    assert_eq!(said(&mut client), "timer");
    let mut another = Client::connect(address);
    another.send(UPGRADE);
    another.upgraded();
    another.text("hello");
    assert_eq!(said(&mut another), "hello");
    another.text("end");
    client.rest();
    ended(server);
}

/// Serves until it is told to fork, and gives what it has to the child.
fn serve_and_fork<A: Forks>(listen: Listen) -> libc::pid_t {
    let (mut context, _) = serving(listen);
    let remote = context.remote().expect("descriptors are left");
    let mut talks = Talks::default();
    let mut own = Some(A::new(context, &talks));
    let here = own.as_mut().expect("it was just made");
    here.run_until(&mut talks, |talks| talks.0.to_fork.get());
    // It waits at the fork.
    post(&remote);
    let child = fork(|| {
        assert_unheard(&remote);
        let mut own = own.take().expect("it was there before the fork");
        own.take_over().expect("descriptors are left");
        post(&remote);
        own.run_until(&mut talks, |talks| talks.0.to_end.get());
        own.end();
    });
    own.take().expect("it is this process's").abandon();
    child
}

/// Runs `child` in a forked child, which then ends: with 1, if that has panicked.
fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the process runs one test in its main thread. The only other one is that of the resolver, which has no lock that the
    // child asks for: that it does not is what is tested.
    match unsafe { libc::fork() } {
        0 => {
            limit_time();
            let result = catch_unwind(AssertUnwindSafe(child));
            // SAFETY: it ends the process, and runs nothing of the parent's.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        child => {
            assert!(child > 0, "no process is left");
            child
        }
    }
}

/// Waits for a child, which ends well.
fn ended(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: the pointer is to a local.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child has failed");
}

/// A process that waits in vain is ended by the system.
fn limit_time() {
    // SAFETY: it takes a number only.
    unsafe { libc::alarm(60) };
}

/// Runs the test of this path in a process of its own; true there.
pub fn in_own_process(path: &str) -> bool {
    const MARK: &str = "LODGER_BATTERY_FORKS";
    let (_, name) = path.split_once("::").expect("a path begins with the crate");
    if env::var_os(MARK).is_some_and(|value| value == name) {
        limit_time();
        return true;
    }
    let mut command = Command::new(env::current_exe().expect("this is a program"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    // The peers are in the processes that fork, and speak plainly.
    let output =
        command.env(MARK, name).env_remove("LODGER_BATTERY_TLS").output().expect("it was started before");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "in its own process:\n{out}\n{err}");
    false
}
