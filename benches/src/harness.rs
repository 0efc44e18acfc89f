//! Rows, rounds, medians, and the table.

use std::io::Write as _;
use std::time::Duration;

use crate::os;
use crate::race::{How, Place};

/// The name of this library among the rivals.
pub(crate) const OURS: &str = "multiproc";
/// The time after which a run counts as hung; and the same with `--long`.
const PATIENCE: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(300);

/// One row of the comparison: the same work, by several rivals.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// The unit of the values: `ns`, unless set otherwise.
    pub(crate) unit: &'static str,
    pub(crate) rivals: Vec<Rival>,
}

/// An implementation that does the work of a row.
pub(crate) struct Rival {
    name: &'static str,
    how: How,
    size: Size,
    run: Run,
}

/// Does this many operations, and returns the nanoseconds for each.
type Run = Box<dyn Fn(u64) -> Result<f64, String>>;

enum Size {
    /// As many operations as fill the time of a run; calibration begins with this many.
    Calibrated(u64),
    Fixed(u64),
}

/// The options of the command line.
pub(crate) struct Settings {
    pub(crate) json: bool,
    /// Also the rows that take minutes.
    pub(crate) long: bool,
    pub(crate) only: String,
    pub(crate) implementation: Option<String>,
    rounds: usize,
    /// The time of a run.
    nanoseconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let (only, implementation) = (String::new(), None);
        Self { json: false, long: false, only, implementation, rounds: 5, nanoseconds: 150_000_000 }
    }
}

impl Settings {
    fn patience(&self) -> Duration {
        if self.long { LONG } else { PATIENCE }
    }

    pub(crate) fn quick(&mut self) {
        self.rounds = 1;
        self.nanoseconds = 10_000_000;
    }
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, place: Place) -> Self {
        Self { name: name.into(), place, unit: "ns", rivals: Vec::new() }
    }

    /// Adds a rival whose run has as many operations as fill its time.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        how: How,
        run: impl Fn(u64) -> Result<f64, String> + 'static,
    ) {
        self.rivals.push(Rival { name, how, size: Size::Calibrated(2000), run: Box::new(run) });
    }

    /// Adds a slow rival, whose calibration begins with this many operations.
    pub(crate) fn add_slow(
        &mut self,
        name: &'static str,
        how: How,
        first: u64,
        run: impl Fn(u64) -> Result<f64, String> + 'static,
    ) {
        self.rivals.push(Rival { name, how, size: Size::Calibrated(first), run: Box::new(run) });
    }

    /// Adds a rival with a fixed number of operations in each run.
    pub(crate) fn add_fixed(
        &mut self,
        name: &'static str,
        how: How,
        operations: u64,
        run: impl Fn(u64) -> Result<f64, String> + 'static,
    ) {
        self.rivals.push(Rival { name, how, size: Size::Fixed(operations), run: Box::new(run) });
    }
}

/// Runs the rows and prints each when it is done; returns true if every row of this library has a number.
pub(crate) fn run(rows: Vec<Row>, settings: &Settings) -> bool {
    if settings.json {
        eprintln!("{}", os::machine());
    } else {
        println!("{}", os::machine());
        println!(
            "{:<20} {:<14} {:>13} {:<4} {:>8}  {:<23} {:<6} workers",
            "row", "impl", "value", "unit", "ours/it", "min - max", "place"
        );
    }
    if os::two_cpus()[0] == os::two_cpus()[1] {
        eprintln!("only one CPU: place cross is the same as place same");
    }
    let (mut all, mut any) = (true, false);
    for mut row in rows.into_iter().filter(|row| row.name.starts_with(&settings.only)) {
        row.rivals.retain(|rival| settings.implementation.as_ref().is_none_or(|name| rival.name == name));
        let measured = measure(&row, settings);
        if os::interrupted() {
            return false;
        }
        all &= row.rivals.iter().zip(&measured).all(|(rival, result)| rival.name != OURS || result.is_ok());
        any |= !measured.is_empty();
        show(&row, &measured, settings);
    }
    if !any {
        eprintln!("no such row");
    }
    all && any
}

/// Median and range over the rounds of one rival.
struct Figures {
    median: f64,
    least: f64,
    most: f64,
}

/// Runs each rival once in each round; each round begins with another rival.
fn measure(row: &Row, settings: &Settings) -> Vec<Result<Figures, String>> {
    let count = row.rivals.len();
    let mut sizes: Vec<Result<u64, String>> =
        row.rivals.iter().map(|rival| operations(rival, settings)).collect();
    let mut values = vec![Vec::new(); count];
    for round in 0..settings.rounds {
        for turn in 0..count {
            let rival = (round + turn) % count;
            let Ok(operations) = sizes[rival] else { continue };
            match os::isolated(settings.patience(), &|| (row.rivals[rival].run)(operations)) {
                Ok(value) => values[rival].push(value),
                Err(problem) => sizes[rival] = Err(problem),
            }
        }
    }
    sizes.into_iter().zip(values).map(|(size, values)| size.map(|_| Figures::of(values))).collect()
}

fn operations(rival: &Rival, settings: &Settings) -> Result<u64, String> {
    let mut count = match rival.size {
        Size::Fixed(count) => return Ok(count),
        Size::Calibrated(first) => first,
    };
    let wanted = settings.nanoseconds as f64;
    loop {
        let each = os::isolated(settings.patience(), &|| (rival.run)(count))?;
        let enough = (wanted / each.max(0.1)).ceil();
        // A shorter run predicts a long run badly.
        if each * count as f64 >= wanted / 5.0 {
            return Ok((enough as u64).max(10));
        }
        count = (enough as u64).clamp(count * 2, count * 20);
    }
}

impl Figures {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), least: at(0), most: at(values.len().saturating_sub(1)) }
    }
}

fn show(row: &Row, measured: &[Result<Figures, String>], settings: &Settings) {
    let mut all = row.rivals.iter().zip(measured);
    let ours =
        all.find(|(rival, _)| rival.name == OURS).and_then(|(_, result)| Some(result.as_ref().ok()?.median));
    for (rival, result) in row.rivals.iter().zip(measured) {
        let (name, implementation) = (&row.name, rival.name);
        let Figures { median, least, most } = match result {
            Ok(figures) => figures,
            Err(problem) => {
                eprintln!("{name} {implementation}: no number: {problem}");
                continue;
            }
        };
        if settings.json {
            println!(
                r#"{{"row":"{name}","impl":"{implementation}","value":{median:.2},"unit":"{}"}}"#,
                row.unit
            );
        } else {
            let ratio = ours.map_or(String::new(), |ours| format!("{:.2}", ours / median));
            let range = format!("{least:.1} - {most:.1}");
            let (place, how) = (row.place.name(), rival.how.name());
            print!("{name:<20} {implementation:<14} {median:>13.1} {:<4} {ratio:>8}", row.unit);
            println!("  {range:<23} {place:<6} {how}");
        }
    }
    let _ = std::io::stdout().flush();
}
