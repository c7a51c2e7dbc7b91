//! `docs/benchmarks.md` and its images, from the results: a section a benchmark, between its own marks. What stands outside
//! the marks is written by hand, and has no figures.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use crate::{
    error::{Error, Result},
    figures::{self, Figure, Measure},
    plot,
};

const PAGE: &str = "docs/benchmarks.md";

/// What a run was made on and with: name and value.
type Facts = Vec<(String, String)>;

/// Notes what the results were made with, beside them.
pub fn facts(facts: &[(String, String)]) -> Result<()> {
    figures::store("fanout-facts", facts)
}

/// That what is there was made with the same: a ratio, or a line through two figures, of different machines says nothing.
pub fn same(facts: &[(String, String)]) -> Result<()> {
    let measures: Vec<Measure> = figures::load("fanout")?;
    let before: Facts = figures::load("fanout-facts")?;
    let differs = facts.iter().find(|(name, value)| before.iter().any(|(n, v)| n == name && v != value));
    match differs.filter(|_| !measures.is_empty()) {
        None => Ok(()),
        Some((name, value)) => Err(Error::said(format!(
            "{} was made with another {name} than {value}: move it and fanout-facts.json away, and run all sizes again",
            figures::path("fanout")
        ))),
    }
}

/// Writes all sections anew.
pub fn page() -> Result<()> {
    let mut page = fs::read_to_string(PAGE)?;
    let measures: Vec<Measure> = figures::load("fanout")?;
    if !measures.is_empty() {
        let facts: Facts = figures::load("fanout-facts")?;
        page = section(&page, "fanout", &fanout(&measures, &facts))?;
        fs::create_dir_all("docs/images")?;
        for fanout in [1, 3] {
            let Some(svg) = plot::catch_up(&measures, fanout) else { continue };
            fs::write(format!("docs/images/fanout-{fanout}.svg"), svg)?;
        }
    }
    let generate: Vec<serde_json::Value> = figures::load("generate")?;
    if let Some(found) = generate.first() {
        page = section(&page, "generate", &generated(found))?;
    }
    let gateway: Vec<serde_json::Value> = figures::load("gateway")?;
    if !gateway.is_empty() {
        page = section(&page, "gateway", &of_gateway(&gateway))?;
    }
    fs::write(PAGE, page)?;
    Ok(())
}

/// Replaces what stands between the marks of a section.
fn section(page: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let missing = || Error::said(format!("{PAGE} has no marks '{begin}' and '{end}'"));
    let (head, rest) = page.split_once(&begin).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(&end).ok_or_else(missing)?;
    Ok(format!("{head}{begin}\n{text}{end}{tail}"))
}

/// Three digits that matter.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn figure(figure: Option<&Figure>) -> String {
    let Some(Figure { minimum, median, maximum, .. }) = figure else { return "-".to_owned() };
    let (low, middle, high) = (number(*minimum), number(*median), number(*maximum));
    if low == high { middle } else { format!("{middle} ({low} to {high})") }
}

fn fanout(measures: &[Measure], facts: &Facts) -> String {
    let mut text = String::new();
    let machine: Vec<String> = facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let _ = writeln!(text, "Made by `make bench-fanout`: {}.\n", machine.join("; "));
    for fanout in [1, 3] {
        if plot::catch_up(measures, fanout).is_some() {
            let _ = writeln!(
                text,
                "![CPU-seconds to catch up with the load, by partners, at fan-out {fanout}](images/fanout-{fanout}.svg)\n"
            );
        }
    }
    let mut rows: BTreeMap<&str, Vec<&Measure>> = BTreeMap::new();
    for measure in measures {
        rows.entry(&measure.name).or_default().push(measure);
    }
    for (name, rows) in rows {
        let unit = rows.iter().find_map(|m| m.liaison.as_ref().or(m.native.as_ref())).map_or("", |f| f.unit.as_str());
        let _ = writeln!(
            text,
            "**{name}** ({unit})\n\n| partners | fan-out | Liaison | native | ratio |\n|---:|---:|---:|---:|---:|"
        );
        for m in rows {
            let mark = if m.extrapolated { " (extrapolated)" } else { "" };
            let (less, more) = if m.native_is_less { ("less than ", "more than ") } else { ("", "") };
            let ratio = m.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{more}{}", number(ratio)));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {less}{}{mark} | {ratio} |",
                m.n,
                m.fanout,
                figure(m.liaison.as_ref()),
                figure(m.native.as_ref())
            );
        }
        text.push('\n');
    }
    text
}

fn generated(found: &serde_json::Value) -> String {
    let value = |name: &str| found.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Made by `make bench-generate`: {} files with children and photographs, {} cores.\n",
        value("files"),
        value("cores")
    );
    let _ = writeln!(text, "| | seconds | files a second |\n|---|---:|---:|");
    for (label, name) in [("`liaison-oms generate`", "liaison"), ("`pg_dump \\| psql`", "native")] {
        let _ = writeln!(text, "| {label} | {} | {} |", number(value("files") / value(name)), number(value(name)));
    }
    let _ = writeln!(text, "\nLiaison's rate is {} times that of the dump.\n", number(value("ratio")));
    text
}

fn of_gateway(all: &[serde_json::Value]) -> String {
    let mut text =
        "Made by `make bench-gateway`; F and G by `make bench-operator`, the pod's rows of C by `make bench-takeover`.\n\n| what | figure | | taken | beside |\n|---|---:|---|---:|---|\n".to_owned();
    for found in all {
        let word = |name: &str| found.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let value = |name: &str| found.get(name).and_then(serde_json::Value::as_f64);
        let beside =
            value("peer").map_or_else(String::new, |peer| format!("{} of {}", number(peer), word("peer_name")));
        let figure = number(value("value").unwrap_or_default());
        let count = value("count").unwrap_or_default();
        let _ = writeln!(text, "| {} | {figure} | {} | {count} | {beside} |", word("name"), word("unit"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n";
        assert_eq!(section(page, "x", "new\n").unwrap(), "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n");
        assert!(section(page, "y", "").is_err());
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [number(1234.5), number(12.34), number(1.234), number(0.1234), number(0.0)],
            ["1234", "12.3", "1.23", "0.123", "0"]
        );
    }
}
