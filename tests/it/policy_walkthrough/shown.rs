//! Ids and times, which differ at each run, as the manual shows them.

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

/// The day on which the manual was written.
const TODAY: Date = date(2026, 11, 30);
const ID: &str = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
const TIME: &str = "dddd-dd-ddTdd:dd:dd.ddddddZ";
const DAY: &str = "dddd-dd-dd";

/// The ids that were printed, in their order, and the day on which the walk began.
#[derive(Debug)]
pub(super) struct Ids {
    printed: Vec<String>,
    today: Date,
}

impl Ids {
    pub(super) fn new(today: Date) -> Self {
        Self {
            printed: Vec::new(),
            today,
        }
    }

    /// A text with other ids and times than it has.
    pub(super) fn shown(&mut self, printed: &str) -> String {
        let mut text = String::with_capacity(printed.len());
        let mut rest = printed;
        while let Some(first) = rest.chars().next() {
            let (shown, len) = if has_shape(rest, ID) {
                (self.shown_id(&rest[..ID.len()]), ID.len())
            } else if has_shape(rest, TIME) {
                let day = self.shown_day(&rest[..DAY.len()]);
                (format!("{day}T09:00:00.000000Z"), TIME.len())
            } else if has_shape(rest, DAY) {
                (self.shown_day(&rest[..DAY.len()]), DAY.len())
            } else {
                (first.to_string(), first.len_utf8())
            };
            text.push_str(&shown);
            rest = &rest[len..];
        }
        text
    }

    /// A text with the ids that were printed.
    pub(super) fn real(&self, shown: &str) -> String {
        let numbered = self.printed.iter().enumerate();
        numbered.fold(shown.to_owned(), |text, (number, id)| {
            text.replace(&id_of(number), id)
        })
    }

    /// A day, counted from the one on which the manual was written.
    fn shown_day(&self, day: &str) -> String {
        let day: Option<Date> = day.parse().ok();
        let shown = day.and_then(|day| TODAY.checked_add(day - self.today).ok());
        shown.unwrap_or(TODAY).to_string()
    }

    fn shown_id(&mut self, id: &str) -> String {
        let known = self.printed.iter().position(|it| it == id);
        let number = known.unwrap_or_else(|| {
            self.printed.push(id.to_owned());
            self.printed.len() - 1
        });
        id_of(number)
    }
}

fn id_of(number: usize) -> String {
    format!("0199c1f0-7e1a-7bbb-8ccc-{:012}", number + 1)
}

/// The day, in UTC.
pub(super) fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// Repeats work until a run of it begins and ends on one day: the flows of a run over midnight lie on
/// two days, which the commands print.
pub(super) fn on_one_day<T>(today: impl Fn() -> Date, mut work: impl FnMut(Date) -> T) -> T {
    loop {
        let day = today();
        let done = work(day);
        if today() == day {
            return done;
        }
    }
}

fn has_shape(text: &str, shape: &str) -> bool {
    let mut bytes = text.bytes();
    shape.bytes().all(|wanted| match (wanted, bytes.next()) {
        (b'x', Some(byte)) => byte.is_ascii_hexdigit(),
        (b'd', Some(byte)) => byte.is_ascii_digit(),
        (wanted, byte) => byte == Some(wanted),
    })
}

#[test]
fn ids_and_times_are_shown_as_the_manual_has_them() {
    let today = date(2027, 3, 1);
    let mut ids = Ids::new(today);
    let real = "01a22b94-e7f6-7403-a135-fe99be5453d5";
    let shown = ids.shown(&format!("{real} {today}T08:31:48.730944Z ä 2027-02-28"));
    let expected = "0199c1f0-7e1a-7bbb-8ccc-000000000001 2026-11-30T09:00:00.000000Z ä 2026-11-29";
    assert_eq!(shown, expected);
    assert_eq!(
        ids.real("x 0199c1f0-7e1a-7bbb-8ccc-000000000001"),
        format!("x {real}")
    );
}

#[test]
fn a_run_over_midnight_is_repeated() {
    let asked = std::cell::Cell::new(0);
    let today = || {
        asked.set(asked.get() + 1);
        if asked.get() == 1 {
            date(2026, 11, 30)
        } else {
            date(2026, 12, 1)
        }
    };
    let mut runs = Vec::new();
    let day = on_one_day(today, |day| {
        runs.push(day);
        day
    });
    assert_eq!(runs, [date(2026, 11, 30), date(2026, 12, 1)]);
    assert_eq!(day, date(2026, 12, 1));
}
