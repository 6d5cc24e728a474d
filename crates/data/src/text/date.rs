//! A date, as chat templates print it.
//!
//! In: `2024-07-26`, and a format of `strftime`. Out: text.
//! Never: today: what a model reads must not depend on the day it is read on.

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    year: u32,
    month: u32,
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("the date {text:?} is none, expected one as \"2024-07-26\"");
        let parts: Vec<u32> = text
            .split('-')
            .map(|part| part.parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        let &[year, month, day] = parts.as_slice() else { return Err(wrong()) };
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) {
            return Err(wrong());
        }
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if !(1..=days).contains(&day) {
            return Err(wrong());
        }
        Ok(Self { year, month, day })
    }

    /// The date under a format of `strftime`; the time is midnight.
    pub(crate) fn format(&self, format: &str) -> Result<String, String> {
        let Self { year, month, day } = self;
        let month_name = MONTHS[*month as usize - 1];
        let mut text = String::new();
        let mut chars = format.chars();
        while let Some(char) = chars.next() {
            if char != '%' {
                text.push(char);
                continue;
            }
            let mut kind = chars.next();
            let bare = kind == Some('-');
            if bare {
                kind = chars.next();
            }
            let number = |value: u32| if bare { value.to_string() } else { format!("{value:02}") };
            text += &match kind {
                Some('Y') => year.to_string(),
                Some('y') => number(year % 100),
                Some('m') => number(*month),
                Some('d') => number(*day),
                Some('B') => month_name.to_owned(),
                Some('b') => month_name[..3].to_owned(),
                Some('A') => self.weekday().to_owned(),
                Some('a') => self.weekday()[..3].to_owned(),
                Some('H' | 'M' | 'S') => number(0),
                Some('%') => "%".to_owned(),
                other => {
                    let other = other.map_or(String::new(), String::from);
                    return Err(format!("the date format %{other} is not known here"));
                }
            };
        }
        Ok(text)
    }

    /// Sakamoto's rule: January and February count to the year before.
    fn weekday(&self) -> &'static str {
        const SHIFT: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - u32::from(self.month < 3);
        let days = year + year / 4 - year / 100 + year / 400;
        DAYS[((days + SHIFT[self.month as usize - 1] + self.day) % 7) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_print_as_strftime_prints_them() {
        let rows = [
            ("2024-07-26", "%d %b %Y", "26 Jul 2024"),
            ("2024-02-29", "%A, %B %-d %y", "Thursday, February 29 24"),
            ("2000-01-01", "%a %m/%d %H:%M:%S %%", "Sat 01/01 00:00:00 %"),
            ("2026-11-24", "%A", "Tuesday"),
        ];
        for (date, format, want) in rows {
            assert_eq!(Date::parse(date).unwrap().format(format).unwrap(), want);
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "today", "2024-7", "2024-13-01", "2023-02-29", "1900-02-29", "2024-04-31"]
        {
            let said = Date::parse(text).unwrap_err();
            assert!(said.contains("expected one as \"2024-07-26\""), "{said}");
        }
        let said = Date::parse("2024-07-26").unwrap().format("%Q").unwrap_err();
        assert_eq!(said, "the date format %Q is not known here");
    }
}
