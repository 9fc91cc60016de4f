//! Random input, and what to do with it: check it, and show the smallest that fails. `CASES` sets
//! how many, and `SEED` makes a run that failed happen again.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::checker::say;

/// An input: arguments, `KEY=value`s or texts, in bytes that need not be UTF-8.
pub type Words = Vec<Vec<u8>>;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// One of the words between the bars.
    pub fn word<'a>(&mut self, words: &'a str) -> &'a str {
        let words: Vec<_> = words.split('|').collect();
        self.pick(&words)
    }

    /// Text with much of what breaks parsers, quoting and encodings. No NUL, which neither an
    /// argument nor a variable can hold.
    pub fn text(&mut self, longest: usize) -> String {
        const ODD: &str = "\"\"\"\\\\\\'$`{}[]<>&;:,=%#@!?*~|/-_ .\u{a0}\u{ad}\u{e9}\u{3a3}\u{663}\u{200b}\
            \u{2028}\u{3000}\u{d7ff}\u{e000}\u{fdd0}\u{feff}\u{fffd}\u{ffff}\u{10000}\u{1f3e5}\u{10ffff}";
        let odd: Vec<char> = ODD.chars().collect();
        let character = |random: &mut Random| match random.below(4) {
            0 => char::from(32 + random.below(95) as u8),
            1 => char::from_u32(0xa0 + random.next() as u32 % 0x10_ff60).unwrap_or('\u{d7ff}'),
            _ => random.pick(&odd),
        };
        (0..self.below(longest + 1)).map(|_| character(self)).collect()
    }

    /// The same with control characters, and now and then bytes that are no text, or very many.
    pub fn junk(&mut self) -> Vec<u8> {
        let mut junk = self.text(12).into_bytes();
        for _ in 0..self.pick(&[0, 0, 1, 2]) {
            let place = self.below(junk.len() + 1);
            let byte = self.pick(b"\n\r\t\x01\x1b\x7f\xff\xc3\x80=-");
            junk.insert(place, byte);
        }
        junk.repeat(self.pick(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1000]))
    }
}

/// A number from the environment.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

pub fn cases() -> usize {
    number("CASES").unwrap_or(3000) as usize
}

pub fn seed() -> u64 {
    static CLOCK: LazyLock<u64> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    number("SEED").unwrap_or(*CLOCK)
}

/// Checks so many random inputs, and shows the smallest that can be made of one that fails.
pub fn property(
    what: &str,
    cases: usize,
    generate: impl Fn(&mut Random) -> Words + Sync,
    check: impl Fn(&Words) -> Result<(), String> + Sync,
) {
    let (next, said) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
    let work = || {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= cases {
                break;
            }
            let input = generate(&mut Random(seed().wrapping_add((case as u64) << 32)));
            if let Err(why) = check(&input) {
                next.store(cases, Ordering::Relaxed);
                let (input, why) = smallest(input, why, &check);
                let shown: Vec<_> = input.into_iter().map(OsString::from_vec).collect();
                panic!("SEED={} CASES={}: {what} {case}: {shown:?}\n{why}", seed(), self::cases());
            }
            let mut said = said.lock().unwrap();
            if said.elapsed() > Duration::from_secs(1) {
                *said = Instant::now();
                say(&format!("input: {case} of {cases} {what}"));
            }
        }
    };
    thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
}

/// Leaves out words, then halves and single bytes of words, as long as the rest still fails.
fn smallest(
    mut input: Words,
    mut why: String,
    check: impl Fn(&Words) -> Result<(), String>,
) -> (Words, String) {
    let mut step = 0;
    for _ in 0..500 {
        let mut smaller = input.clone();
        let mut left = step;
        // The step counts through the words first, and then through the cuts of each.
        if left < input.len() {
            smaller.remove(left);
        } else {
            left -= input.len();
            let Some((word, cut)) = input.iter().enumerate().find_map(|(n, word)| {
                // A piece of an address would be somebody else's.
                let whole = word.is_empty() || word.starts_with(b"AWS_ENDPOINT_URL");
                let cuts = if whole { 0 } else { 2 + word.len().min(40) };
                if left < cuts {
                    Some((n, left))
                } else {
                    left -= cuts;
                    None
                }
            }) else {
                break;
            };
            let half = smaller[word].len().div_ceil(2);
            match cut {
                0 => drop(smaller[word].drain(..half)),
                1 => smaller[word].truncate(half - 1),
                byte => drop(smaller[word].remove(byte - 2)),
            }
        }
        match check(&smaller) {
            Err(reason) => (input, why, step) = (smaller, reason, 0),
            Ok(()) => step += 1,
        }
    }
    (input, why)
}
