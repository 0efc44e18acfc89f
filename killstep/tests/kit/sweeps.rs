//! Files, cases that cannot be swept, and what the command line asks for.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, io, thread};

use multiproc_killstep::{Args, Case, Fault, Granularity, Mode, Row, Sweep};

use crate::primitives::futex_wait;
use crate::{quiet, words};

pub(crate) fn leaked(sweep: &mut Sweep) -> bool {
    let row = file_case(sweep, "leaked file", Granularity::Instructions, |case| case.max_steps(50_000));
    row.leaked >= 1 && row.leaked == row.faults() && row.kills > row.leaked
}

pub(crate) fn syscalls(sweep: &mut Sweep) -> bool {
    let row = file_case(sweep, "leaked file, system calls", Granularity::Syscalls, |case| case);
    row.leaked >= 1 && row.leaked == row.faults() && row.kills > row.leaked && row.kills < 100
}

/// Makes a file and removes it: in between, a death leaves it.
pub(crate) fn file_case(
    sweep: &mut Sweep,
    name: &str,
    granularity: Granularity,
    more: impl for<'a> Fn(Case<'a, ()>) -> Case<'a, ()>,
) -> Row {
    let directory = env::temp_dir().join(format!("killstep-{}", std::process::id()));
    fs::create_dir(&directory).expect("a directory");
    let file = directory.join("file");
    let case = Case::new(
        name,
        || (),
        |(), _| {
            let made = fs::write(&file, b"x");
            made.and_then(|()| fs::remove_file(&file)).expect("a file made and removed");
        },
        |(), _| Ok(()),
    )
    .granularity(granularity)
    .finally(|| match fs::remove_file(&file) {
        Ok(()) => Err(Fault::Leaked("the file is still there".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    });
    let row = sweep.run(&more(case)).expect("wanted");
    // The rehearsal ends whole, so the directory is empty.
    fs::remove_dir(&directory).expect("an empty directory");
    row
}

pub(crate) fn survivor_dies(sweep: &mut Sweep) -> bool {
    let panics = sweep
        .run(&Case::new("survivor panics", || (), |(), _| (), |(), _| panic!("as planned")))
        .expect("wanted");
    let crashes = sweep
        .run(&Case::new("survivor crashes", || (), |(), _| (), |(), _| std::process::abort()))
        .expect("wanted");
    panics.torn == panics.kills && panics.kills >= 1 && crashes.torn == crashes.kills && crashes.kills >= 1
}

pub(crate) fn broken(sweep: &mut Sweep) -> bool {
    let says = |row: Option<Row>, text: &str| {
        row.and_then(|row| row.broken).is_some_and(|reason| reason.contains(text))
    };
    let endless = Case::new("endless", || (), |(), _| loop_for_ever(), |(), _| Ok(())).max_steps(1_000);
    let panics =
        Case::new("victim panics", || (), |(), _| panic!("as planned"), |(), _| Ok(())).max_steps(1_000_000);
    let early = Case::new("early peer", || (), |(), _| (), |(), _| Ok(())).peer(|(), _| ());
    let restless = Case::new("restless peer", || (), |(), _| (), |(), _| Ok(()))
        .peer(|(), _| loop_for_ever())
        .watchdog(Duration::from_millis(30));
    let stuck = Case::new("stuck", words, |words, _| futex_wait(&words[0], 0, None), |_, _| Ok(()))
        .release(|_, _| ())
        .watchdog(Duration::from_millis(30));
    let ends = says(sweep.run(&endless), "did not end")
        && says(sweep.run(&panics), "as planned")
        && says(sweep.run(&early), "ended instead of waiting")
        && says(sweep.run(&restless), "does not fall asleep")
        && says(sweep.run(&stuck), "did not wake the victim");
    let (end, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // It ends when `end` is dropped.
        scope.spawn(move || wait.recv());
        let _end = end;
        ends && says(sweep.run(&Case::new("threads", || (), |(), _| (), |(), _| Ok(()))), "threads")
    })
}

pub(crate) fn only(_: &mut Sweep) -> bool {
    let mut args = Args::default();
    (args.only, args.step) = (Some("pre".into()), Some(2));
    let mut sweep = Sweep::new(args);
    let case = |name| {
        Case::new(
            name,
            || (),
            |(), cells| (0..9).for_each(|at| cells.set(at, 1)),
            |(), kill| if kill.step() == 2 { Ok(()) } else { Err(Fault::Torn("not step 2".into())) },
        )
    };
    let other = sweep.run(&case("other"));
    let row = sweep.run(&case("prefixed"));
    other.is_none() && row.is_some_and(|row| row.kills == 1 && quiet(&row))
}

pub(crate) fn planted_bugs(_: &mut Sweep) -> bool {
    let mut args = Args::default();
    args.planted = true;
    let mut sweep = Sweep::new(args);
    let sound = Case::new("sound", || (), |(), _| (), |(), _| Ok(()));
    let unsound = Case::new("unsound", || (), |(), _| (), |(), _| Err(Fault::Torn("as planned".into())));
    sweep.planted_bug("first bug", Mode::Kill, &sound);
    sweep.planted_bug("first bug", Mode::Kill, &unsound);
    sweep.planted_bug("second bug", Mode::Kill, &sound);
    let report = sweep.report();
    report.summary() == "killstep: 0 operations, 0 kills, 0 hangs, 0 torn, 0 lost, 0 leaked, planted 1/2"
        && !report.passed()
        && report.planted[0].test == "unsound"
}

/// A process that may not use ptrace says so, and does not say that all is well.
pub(crate) fn denied() -> ExitCode {
    const NUMBER: u32 = 0;
    let code = |class: u32| class as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0, 0, NUMBER),
        step(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), 0, 1, libc::SYS_ptrace as u32),
        step(code(libc::BPF_RET | libc::BPF_K), 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(code(libc::BPF_RET | libc::BPF_K), 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid for the call, which copies it.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(set, 0, "seccomp: {}", io::Error::last_os_error());
    let mut sweep = Sweep::new(Args::default());
    assert!(sweep.run(&Case::new("any", || (), |(), _| (), |(), _| Ok(()))).is_none());
    sweep.finish()
}

pub(crate) fn loop_for_ever() {
    loop {
        std::hint::spin_loop();
    }
}
