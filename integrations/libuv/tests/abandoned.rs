//! A guest that is abandoned, as in a forked child. The only test of its file, since it leaves a loop's descriptors behind.

use lodger::{Context, Decision, Io, Listen, Request, Site};
use lodger_libuv::Loop;

#[test]
fn abandoned_guest_leaves_its_handles_to_the_loop_and_nobody_is_called() {
    let mut context: Context = Context::new();
    let accept = |_: &Request<'_>, _: &mut (), _: &mut Io| Decision::Later;
    let site = context.io().add_site(Site::new().protocol("", accept)).unwrap();
    context.io().listen(Listen::tcp(([127, 0, 0, 1], 0)), site).unwrap();
    let _remote = context.remote().unwrap();
    let mut uv = Loop::new().unwrap();
    let guest = uv.join(context, ());
    uv.run_nowait();
    let local = guest.local();
    guest.abandon();
    assert!(!local.with(|_, _| unreachable!()));
    uv.run_nowait();
    // As in a forked child, the loop is of no use any more.
    std::mem::forget(uv);
}
