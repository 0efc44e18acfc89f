//! The kit on tiny protocols of known worth: it finds nothing in the sound ones, and what is wrong in the others.
#![allow(unsafe_code, reason = "protocols of its own, on bare futexes and a libc mutex")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "calls that belong together")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a test program talks")]

use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, io, ptr, thread};

use multiproc_killstep::{Args, Case, Cells, Fault, Granularity, Mode, NO_PTRACE, Region, Row, SharedWords, Sweep};

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("denied") {
        return denied();
    }
    let (mut failed, mut count) = (Vec::new(), 1);
    for all in [false, true] {
        let mut args = Args::default();
        (args.all, args.planted, args.mode) = (all, true, Some(Mode::Kill));
        let mut sweep = Sweep::new(args);
        if let Some(reason) = sweep.unable() {
            eprintln!("ptrace is not allowed here: {reason}");
            return sweep.finish();
        }
        let begin = Instant::now();
        // Unoptimised operations have ten times the steps, and their cost grows with the square.
        let tests = if all && cfg!(debug_assertions) { &TESTS[1..2] } else { TESTS };
        count += tests.len();
        for (what, test) in tests {
            let row = test(&mut sweep);
            if !row {
                failed.push(format!("{what} (all: {all})"));
            }
        }
        println!("{}, in {:.1?}", sweep.report().summary(), begin.elapsed());
    }
    let status = Command::new("/proc/self/exe").arg("denied").status().map(|status| status.code());
    if !matches!(status, Ok(Some(code)) if code == i32::from(NO_PTRACE)) {
        failed.push(format!("denied: {status:?}"));
    }
    for what in &failed {
        eprintln!("FAILED: {what}");
    }
    println!("kit: {count} tests, {} failed", failed.len());
    ExitCode::from(u8::from(!failed.is_empty()))
}

type Test = fn(&mut Sweep) -> bool;

const TESTS: &[(&str, Test)] = &[
    ("one commit store is sound", one_store),
    ("two commit stores are torn", two_stores),
    ("a lock that nobody inherits hangs", orphaned_lock),
    ("a confirmed write that is not there is lost", lost),
    ("a victim is killed asleep, and after its release", released),
    ("a timed sleep ends by itself", timed),
    ("clocks in the vDSO do not livelock", clocks),
    ("a waiter is woken, and the missing wake is found", woken),
    ("libc's robust mutex wakes a late peer", robust),
    ("a recoverer killed in its repair", recoverers),
    ("recoverers of the same", repetitions),
    ("a lock stolen from one who stands still", stolen),
    ("a sleeper stands still", frozen_asleep),
    ("a missed cleanup", missed),
    ("modes: samples and exceptions", extents),
    ("a file left behind is leaked", leaked),
    ("killed at system calls", syscalls),
    ("a survivor that panics or crashes", survivor_dies),
    ("a case that cannot be swept is broken", broken),
    ("--only and --step", only),
    ("planted bugs are counted", planted_bugs),
];

fn words() -> SharedWords {
    SharedWords::new(64).expect("memory for 64 words")
}

fn watch(words: &SharedWords) -> Vec<Region> {
    vec![Region::of::<[AtomicU64]>(words)]
}

fn quiet(row: &Row) -> bool {
    row.faults() == 0 && row.broken.is_none()
}

/// Two slots and a word that says which one counts.
fn one_store(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "one store",
        words,
        |words, _| {
            let spare = 1 - words[0].load(Relaxed);
            for at in 0..4 {
                words[8 + 8 * spare as usize + at].store(7, Relaxed);
            }
            words[0].store(spare, Release);
        },
        |words, kill| {
            let slot = words[0].load(Acquire) as usize;
            let values: Vec<_> = (0..4).map(|at| words[8 + 8 * slot + at].load(Relaxed)).collect();
            match values[..] {
                [0, 0, 0, 0] if kill.finished() => Err(Fault::Lost("the write had returned".into())),
                [0, 0, 0, 0] | [7, 7, 7, 7] => Ok(()),
                _ => Err(Fault::Torn(format!("{values:?}"))),
            }
        },
    )
    .watch(watch);
    let row = sweep.run(&case).expect("wanted");
    quiet(&row) && row.states == 6 && row.kills >= 6
}

fn two_stores(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "two stores",
        words,
        |words, _| {
            words[0].store(1, Release);
            words[8].store(1, Release);
        },
        |words, _| match (words[0].load(Acquire), words[8].load(Acquire)) {
            (a, b) if a == b => Ok(()),
            both => Err(Fault::Torn(format!("{both:?}"))),
        },
    )
    .watch(watch);
    let row = sweep.run(&case).expect("wanted");
    // Between the two stores there is one state, of one or more instructions.
    row.states == 3 && row.torn >= 1 && row.torn < row.kills && row.hangs + row.lost + row.leaked == 0 && row.broken.is_none()
}

fn orphaned_lock(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "orphaned lock",
        words,
        |words, _| {
            lock(&words[0]);
            words[8].store(1, Relaxed);
            unlock(&words[0]);
        },
        |words, _| {
            lock(&words[0]);
            unlock(&words[0]);
            Ok(())
        },
    )
    .watch(watch)
    .watchdog(Duration::from_millis(50))
    .wake_within(Duration::from_millis(50));
    let row = sweep.run(&case).expect("wanted");
    row.hangs >= 2 && row.hangs == row.faults()
}

fn lost(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "lost",
        words,
        |_, cells| cells.set(3, 1),
        |words, kill| match (kill.finished(), kill.cell(3), words[0].load(Acquire)) {
            (true, 1, 0) => Err(Fault::Lost("confirmed, and not there".into())),
            (true, 0, _) => Err(Fault::Torn("a cell does not outlive its writer".into())),
            _ => Ok(()),
        },
    );
    let row = sweep.run(&case).expect("wanted");
    row.lost == 1 && row.faults() == 1
}

fn released(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "released",
        words,
        |words, _| {
            words[8].store(1, Relaxed);
            while words[0].load(Acquire) == 0 {
                futex_wait(&words[0], 0, None);
            }
            words[8].store(2, Relaxed);
        },
        |words, kill| {
            // Facts of a later stage prove an earlier one.
            let stage = words[8].load(Acquire);
            let released = words[0].load(Acquire);
            let right = if kill.blocked() { stage == 1 && released == 0 } else { stage < 2 || released == 1 };
            if right && (!kill.finished() || stage == 2) { Ok(()) } else { Err(Fault::Torn(format!("{stage} {released}"))) }
        },
    )
    .watch(watch);
    let asleep = sweep.run(&case).expect("wanted");
    let case = case.release(|words, _| {
        words[0].store(1, Release);
        futex_wake(&words[0]);
    });
    let through = sweep.run(&case).expect("wanted");
    quiet(&asleep) && quiet(&through) && through.steps > asleep.steps && through.states > asleep.states
}

fn timed(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "timed sleep",
        words,
        |words, _| {
            futex_wait(&words[0], 0, Some(Duration::from_millis(60)));
            words[8].store(1, Release);
        },
        |words, kill| {
            if kill.finished() == (words[8].load(Acquire) == 1) || !kill.finished() {
                Ok(())
            } else {
                Err(Fault::Torn("out".into()))
            }
        },
    )
    .watch(watch)
    .release(|_, _| ());
    let row = sweep.run(&case).expect("wanted");
    quiet(&row) && row.states >= 4
}

fn clocks(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "clocks",
        words,
        |words, _| {
            for at in 0..3 {
                words[at].store(Instant::now().elapsed().as_nanos() as u64 | 1, Relaxed);
            }
        },
        |words, kill| {
            let set = words[..3].iter().filter(|word| word.load(Relaxed) != 0).count();
            if set == 3 || !kill.finished() { Ok(()) } else { Err(Fault::Torn(format!("{set} of 3"))) }
        },
    )
    .watch(watch)
    .max_steps(20_000);
    let row = sweep.run(&case).expect("wanted");
    quiet(&row) && row.states == 4
}

/// A flag and a wake, without anything that would wake in the place of the dead.
fn woken(sweep: &mut Sweep) -> bool {
    let case = |wait: bool| {
        Case::new(
            "wake",
            words,
            |words: &SharedWords, _: &_| {
                words[0].store(1, Release);
                futex_wake(&words[0]);
            },
            move |words, kill| {
                if wait && words[0].load(Acquire) == 1 {
                    kill.must_wake(0)?;
                }
                words[0].store(1, Release);
                futex_wake(&words[0]);
                Ok(())
            },
        )
        .peer(|words, cells| {
            while words[0].load(Acquire) == 0 {
                futex_wait(&words[0], 0, None);
            }
            cells.add(0, 1);
        })
        .watch(watch)
        .wake_within(Duration::from_millis(40))
    };
    let sound = sweep.run(&case(false)).expect("wanted");
    let missing = sweep.run(&case(true)).expect("wanted");
    quiet(&sound) && missing.hangs >= 1 && missing.hangs == missing.faults()
}

/// The kernel wakes a waiter when the owner of a robust mutex dies: seen as a wake latency.
fn robust(sweep: &mut Sweep) -> bool {
    let case = Case::new(
        "robust mutex",
        || {
            let words = words();
            robust_mutex(&words);
            words
        },
        |words, cells| {
            hold(words);
            cells.set(0, 1);
            release(words);
            cells.set(0, 2);
        },
        |_, kill| if kill.cell(0) == 1 { kill.must_wake(0).map(drop) } else { Ok(()) },
    )
    .late_peer(|words, _| {
        hold(words);
        release(words);
    })
    .watch(watch)
    .watchdog(Duration::from_millis(300));
    let row = sweep.run(&case).expect("wanted");
    // glibc loses the wake in a few places of its unlock; that it wakes at most others is enough for us.
    row.kills >= 8 && row.worst_wake.is_some() && row.torn + row.lost + row.leaked == 0
}

fn leaked(sweep: &mut Sweep) -> bool {
    let row = file_case(sweep, "leaked file", Granularity::Instructions, |case| case.max_steps(50_000));
    row.leaked >= 1 && row.leaked == row.faults() && row.kills > row.leaked
}

fn syscalls(sweep: &mut Sweep) -> bool {
    let row = file_case(sweep, "leaked file, system calls", Granularity::Syscalls, |case| case);
    row.leaked >= 1 && row.leaked == row.faults() && row.kills > row.leaked && row.kills < 100
}

/// A journal: the victim announces, moves, and clears; the recoverer rolls forward. Sound only if rolling forward twice is as good as once.
fn recoverers(sweep: &mut Sweep) -> bool {
    let case = |idempotent: bool| {
        Case::new(
            if idempotent { "recoverer, idempotent" } else { "recoverer, adds twice" },
            words,
            |words: &SharedWords, _: &_| {
                words[0].store(1, Release);
                words[8].store(1, Release);
                words[0].store(0, Release);
            },
            |words, kill| {
                if words[0].load(Acquire) == 1 {
                    words[8].store(1, Release);
                    words[0].store(0, Release);
                }
                match words[8].load(Acquire) {
                    0 if !kill.finished() => Ok(()),
                    1 => Ok(()),
                    sum => Err(Fault::Torn(format!("{sum}, the recoverer had finished: {}", kill.recoverer_finished()))),
                }
            },
        )
        .recoverer(move |words, _| {
            if words[0].load(Acquire) == 1 {
                if idempotent {
                    words[8].store(1, Release);
                } else {
                    words[8].fetch_add(1, Release);
                }
                words[0].store(0, Release);
            }
        })
        .watch(watch)
    };
    let sound = in_mode(Mode::Double, &case(true));
    let unsound = in_mode(Mode::Double, &case(false));
    // One kill does not show it: the survivor rolls forward in one store.
    let once = sweep.run(&case(false)).expect("wanted");
    quiet(&once) && quiet(&sound) && sound.kills > 2 * sound.states && unsound.torn >= 1 && unsound.torn == unsound.faults()
}

/// States that leave the same are given one recoverer's sweep.
fn repetitions(_: &mut Sweep) -> bool {
    let case = Case::new(
        "there and back",
        words,
        |words, _| [1, 2, 1, 2, 3].into_iter().for_each(|number| words[0].store(number, Release)),
        |_, _| Ok(()),
    )
    .watch(watch);
    let row = in_mode(Mode::Double, &case);
    quiet(&row) && row.repeated == 2 && row.states == 6
}

/// A lock that knows its owner by process id, and looks whether that lives. One that `steals` after a time-out is sound as long as whoever holds it too long is dead.
fn stolen(sweep: &mut Sweep) -> bool {
    let case = |steals: bool| {
        let add = move |words: &SharedWords, limit: Duration| {
            let taken = take(&words[0], steals, limit);
            if taken {
                let sum = words[8].load(Acquire) + 1;
                // One more state, between the look and the store.
                words[16].store(sum, Release);
                words[8].store(sum, Release);
                words[0].store(0, Release);
            }
            taken
        };
        Case::new(
            if steals { "steals after a time-out" } else { "steals from the dead" },
            words,
            move |words: &SharedWords, _: &_| assert!(add(words, Duration::from_secs(1))),
            move |words, kill| {
                if !add(words, Duration::from_secs(1)) {
                    return Err(Fault::Hang("nobody gets it".into()));
                }
                match words[8].load(Acquire) - kill.cell(0) {
                    2 => Ok(()),
                    1 if !kill.finished() => Ok(()),
                    sum => Err(Fault::Lost(format!("{sum}, not 2"))),
                }
            },
        )
        .frozen(move |words, kill| {
            kill.cells().set(0, u64::from(add(words, Duration::from_millis(20))));
            Ok(())
        })
        .watch(watch)
    };
    let found = [Mode::Freeze, Mode::Missed].map(|mode| [false, true].map(|steals| in_mode(mode, &case(steals))));
    let [[honest, thief], [belt, other_belt]] = &found;
    quiet(&sweep.run(&case(true)).expect("wanted"))
        && quiet(honest)
        && thief.lost >= 1
        && thief.lost == thief.faults()
        && quiet(belt)
        && quiet(other_belt)
}

fn take(word: &AtomicU64, steals: bool, limit: Duration) -> bool {
    let (me, begin) = (u64::from(std::process::id()), Instant::now());
    let mut owner = 0;
    while let Err(other) = word.compare_exchange(owner, me, Acquire, Relaxed) {
        let alive = fs::read_to_string(format!("/proc/{other}/stat")).is_ok_and(|stat| !stat.contains(") Z"));
        owner = if alive && !(steals && begin.elapsed() > Duration::from_millis(5)) { 0 } else { other };
        if begin.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_micros(100));
    }
    true
}

/// Asleep, and stopped there: it goes on as if nothing had happened, and is woken by what came meanwhile.
fn frozen_asleep(_: &mut Sweep) -> bool {
    let case = Case::new(
        "frozen asleep",
        words,
        |words, _| {
            while words[0].load(Acquire) == 0 {
                futex_wait(&words[0], 0, None);
            }
            words[8].fetch_add(1, Release);
        },
        |words, kill| {
            if kill.finished() && words[8].load(Acquire) == 1 && kill.cell(1) == 1 {
                Ok(())
            } else {
                Err(Fault::Lost(format!("{}, finished: {}", words[8].load(Acquire), kill.finished())))
            }
        },
    )
    .frozen(|words, kill| {
        words[0].store(1, Release);
        futex_wake(&words[0]);
        kill.cells().set(1, 1);
        // What stands still does nothing.
        let before = words[8].load(Acquire);
        thread::sleep(Duration::from_millis(3));
        if words[8].load(Acquire) == before { Ok(()) } else { Err(Fault::Torn("it went on".into())) }
    })
    .release(|words, _| {
        words[0].store(1, Release);
        futex_wake(&words[0]);
    })
    .watch(watch);
    let row = in_mode(Mode::Freeze, &case);
    quiet(&row) && row.kills >= 3
}

/// A list that the kernel does not walk: libc's mutex, which has no belt, is lost with its owner.
fn missed(_: &mut Sweep) -> bool {
    let case = |belt: bool| {
        Case::new(
            if belt { "cleanup missed, and made good" } else { "cleanup missed" },
            || {
                let words = words();
                robust_mutex(&words);
                words
            },
            |words: &SharedWords, cells: &Cells| {
                hold(words);
                cells.set(0, 1);
                // Held, in some states that can be told apart.
                (1..4).for_each(|number| words[16].store(number, Relaxed));
                cells.set(0, 2);
                release(words);
            },
            move |words, kill| {
                if belt {
                    // By another road.
                    robust_mutex(words);
                }
                if kill.cell(0) != 1 {
                    return Ok(());
                }
                let held = kill.cells();
                hold(words);
                held.set(1, 1);
                release(words);
                Ok(())
            },
        )
        .watch(watch)
        .watchdog(Duration::from_millis(100))
        .poll_within(Duration::from_millis(100))
    };
    let single = in_mode(Mode::Kill, &case(false));
    let (lost, mended) = (in_mode(Mode::Missed, &case(false)), in_mode(Mode::Missed, &case(true)));
    quiet(&single) && quiet(&mended) && lost.hangs >= 3 && lost.hangs == lost.faults()
}

/// What the modes leave out, and what they take a sample of.
fn extents(_: &mut Sweep) -> bool {
    let case = |name: &str| {
        Case::new(
            name,
            words,
            |words: &SharedWords, _: &_| (1..9).for_each(|number| words[0].store(number, Release)),
            |_, _| Ok(()),
        )
        .watch(watch)
    };
    let mut sweep = Sweep::new(Args::default());
    sweep.run(&case("not sampled"));
    sweep.run(&case("sampled").sampled(2).without(Mode::Missed, "as planned"));
    let parsed = |word: &str| Args::parse(["--mode", word].map(str::to_owned)).map(|args| args.mode);
    if parsed("missed") != Ok(Some(Mode::Missed)) || parsed("any").is_ok() {
        return false;
    }
    let rows = &sweep.report().rows;
    let facts: Vec<_> = rows.iter().map(|row| (row.operation.as_str(), row.mode, row.kills)).collect();
    facts
        == [
            ("not sampled", Mode::Kill, 10),
            ("sampled", Mode::Kill, 10),
            ("sampled", Mode::Double, 8),
            ("sampled", Mode::Freeze, 2),
        ]
        && sweep.report().summary().starts_with("killstep: 2 operations, 30 kills,")
}

fn in_mode<S>(mode: Mode, case: &Case<'_, S>) -> Row {
    let mut args = Args::default();
    args.mode = Some(mode);
    Sweep::new(args).run(case).expect("wanted")
}

/// Makes a file and removes it: in between, a death leaves it.
fn file_case(
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

fn survivor_dies(sweep: &mut Sweep) -> bool {
    let panics = sweep.run(&Case::new("survivor panics", || (), |(), _| (), |(), _| panic!("as planned"))).expect("wanted");
    let crashes = sweep.run(&Case::new("survivor crashes", || (), |(), _| (), |(), _| std::process::abort())).expect("wanted");
    panics.torn == panics.kills && panics.kills >= 1 && crashes.torn == crashes.kills && crashes.kills >= 1
}

fn broken(sweep: &mut Sweep) -> bool {
    let says = |row: Option<Row>, text: &str| row.and_then(|row| row.broken).is_some_and(|reason| reason.contains(text));
    let endless = Case::new("endless", || (), |(), _| loop_for_ever(), |(), _| Ok(())).max_steps(1_000);
    let panics = Case::new("victim panics", || (), |(), _| panic!("as planned"), |(), _| Ok(())).max_steps(1_000_000);
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

fn only(_: &mut Sweep) -> bool {
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

fn planted_bugs(_: &mut Sweep) -> bool {
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
fn denied() -> ExitCode {
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

fn loop_for_ever() {
    loop {
        std::hint::spin_loop();
    }
}

// A lock of three states (free, taken, taken and waited for) that knows nothing of owners.

fn lock(word: &AtomicU64) {
    if word.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
        while word.swap(2, Acquire) != 0 {
            futex_wait(word, 2, None);
        }
    }
}

fn unlock(word: &AtomicU64) {
    if word.swap(0, Release) == 2 {
        futex_wake(word);
    }
}

/// Sleeps while the low half of `word` is `expected`.
fn futex_wait(word: &AtomicU64, expected: u32, limit: Option<Duration>) {
    let limit = limit.map(|limit| libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: word and limit are valid for the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, limit) };
}

fn futex_wake(word: &AtomicU64) {
    // SAFETY: it only names an address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

// libc's robust mutex, at the beginning of shared words.

fn mutex(words: &SharedWords) -> *mut libc::pthread_mutex_t {
    words[0].as_ptr().cast()
}

fn robust_mutex(words: &SharedWords) {
    // SAFETY: the attributes are initialised before use, and the mutex has room.
    unsafe {
        let mut attributes = std::mem::zeroed();
        libc::pthread_mutexattr_init(&raw mut attributes);
        libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED);
        libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST);
        libc::pthread_mutex_init(mutex(words), &raw const attributes);
    }
}

fn hold(words: &SharedWords) {
    // SAFETY: `robust_mutex` has initialised it.
    let result = unsafe { libc::pthread_mutex_lock(mutex(words)) };
    if result == libc::EOWNERDEAD {
        // SAFETY: as above, and this thread holds it.
        unsafe { libc::pthread_mutex_consistent(mutex(words)) };
    }
}

fn release(words: &SharedWords) {
    // SAFETY: this thread holds it.
    unsafe { libc::pthread_mutex_unlock(mutex(words)) };
}
