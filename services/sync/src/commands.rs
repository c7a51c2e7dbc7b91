//! The commands for people: what they ask of the ledger and of disposal. Thin: each reads the environment, calls one tested
//! function, and prints.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand, ValueEnum};
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use liaison_records::{
    evidence::{Mark, Verdict, Verifier},
    names::PartnerName,
};
use serde::Serialize;

use crate::{
    account::{self, Account, Notice, Record},
    connect::Target,
    error::{Error, Side},
    export, retention,
    witness::{self, Accepted},
};

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Of one person.
#[derive(Debug, Args)]
pub struct Person {
    /// FPS number, such as 123456A.
    #[arg(long, value_parser = fps)]
    fps: String,
    /// First day, YYYY-MM-DD, in UTC.
    #[arg(long)]
    since: Option<Date>,
    /// How the answer is printed.
    #[arg(long, default_value = "text")]
    output: Output,
}

/// What can be asked of the ledger.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Everyone who received anything about this FPS number (Privacy Act 8-9).
    Account(Person),
    /// Which partners must be told of a correction, and whether their replicas have it (Privacy Act 12(2)(b)). Without --since:
    /// those of the last two years.
    Corrections {
        /// Whom it is about.
        #[command(flatten)]
        person: Person,
        /// Table of the corrected record, as the catalogue names it; with --id.
        #[arg(long, requires = "id")]
        table: Option<String>,
        /// Number of the corrected record.
        #[arg(long, requires = "table")]
        id: Option<i64>,
    },
    /// Writes the ledger to a file of JSON lines.
    Export {
        /// Of one partner.
        #[arg(long, required_unless_present = "all", conflicts_with = "all")]
        partner: Option<PartnerName>,
        /// Of all.
        #[arg(long)]
        all: bool,
        /// The file; must not exist.
        #[arg(long)]
        to: PathBuf,
    },
    /// Verifies such a file, with no database: finds what was changed, removed, reordered or cut off.
    Verify {
        /// The file.
        file: PathBuf,
        /// Certificates in PEM to which signatures must lead: the root of Liaison's CA.
        #[arg(long)]
        root: Option<PathBuf>,
        /// The file is of this partner alone.
        #[arg(long)]
        partner: Option<PartnerName>,
        /// Last batch and head that a replica's cursor names: PARTNER:BATCH:HEX. May be given again.
        #[arg(long = "head", value_parser = head)]
        heads: Vec<Mark>,
        /// How the answer is printed.
        #[arg(long, default_value = "text")]
        output: Output,
    },
    /// Decides that the ledger goes on although the hub lacks what the kept checkpoint had seen (docs/runbooks/ledger-lost.md).
    AcceptLoss {
        /// Who decides; it stands on the hub with the checkpoint.
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        by: String,
        /// Why the ledger goes on, such as the number of the incident.
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        reason: String,
    },
}

/// What can be asked of disposal.
#[derive(Debug, Subcommand)]
pub enum Disposal {
    /// By when each replica must be gone.
    List {
        /// How the answer is printed.
        #[arg(long, default_value = "text")]
        output: Output,
    },
    /// Sets the hub's own legal hold: it refuses disposal with no manifest left too.
    Hold {
        /// Whose replica.
        #[arg(long)]
        partner: PartnerName,
    },
    /// Lifts it.
    Release {
        /// Whose replica.
        #[arg(long)]
        partner: PartnerName,
    },
}

fn fps(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let right = bytes.len() == 7 && bytes[..6].iter().all(u8::is_ascii_digit) && bytes[6].is_ascii_uppercase();
    if right { Ok(text.to_owned()) } else { Err("must be six digits and a capital letter, such as 123456A".to_owned()) }
}

fn head(text: &str) -> Result<Mark, String> {
    let wrong = || "must be PARTNER:BATCH:HEX, as a replica's cursor has them".to_owned();
    let [partner, batch, head] = text.split(':').collect::<Vec<_>>()[..] else { return Err(wrong()) };
    let batch = batch.parse().map_err(|_| wrong())?;
    if head.len() != 64 || hex::decode(head).is_err() {
        return Err(wrong());
    }
    Ok(Mark { partner: partner.to_owned(), batch, head: head.to_lowercase(), entries: 0, facts: String::new() })
}

/// The start of a day.
fn instant(day: Date) -> Result<Timestamp, Error> {
    let zoned = day.to_zoned(TimeZone::UTC);
    zoned.map(|z| z.timestamp()).map_err(|e| Error::Config(format!("--since cannot be used: {e}")))
}

/// Two years before: what section 12(2)(b) of the Privacy Act looks back.
pub fn two_years_before(now: Timestamp) -> Timestamp {
    let zoned = now.to_zoned(TimeZone::UTC);
    zoned.checked_sub(2.years()).map_or(Timestamp::UNIX_EPOCH, |z| z.timestamp())
}

/// Prints what a command says. A file that is not whole, and an error, are failures.
pub fn finish(result: Result<(String, bool), Error>) -> ExitCode {
    match result {
        Ok((text, well)) => {
            let mut out = std::io::stdout().lock();
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() || !well {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|e| Error::Corrupt(format!("the answer cannot be printed: {e}")))
}

impl Ledger {
    /// The text, and whether all is well.
    pub async fn run(self, namespace: &str) -> Result<(String, bool), Error> {
        match self {
            Self::AcceptLoss { by, reason } => {
                let hub = Target::from_env(Side::Hub)?.connect().await?;
                let kubernetes =
                    kube::Client::try_default().await.map_err(|error| Error::Kubernetes(error.to_string()))?;
                Ok((accepted_text(witness::accept(&kubernetes, namespace, &hub, &by, &reason).await?.as_ref()), true))
            }
            Self::Account(Person { fps, since, output }) => {
                let hub = Target::from_env(Side::Hub)?.connect().await?;
                let since = since.map(instant).transpose()?.unwrap_or(Timestamp::UNIX_EPOCH);
                let account = account::account(&hub, &fps, since).await?;
                Ok((if output == Output::Json { json(&account)? } else { account_text(&account) }, true))
            }
            Self::Corrections { person: Person { fps, since, output }, table, id } => {
                let hub = Target::from_env(Side::Hub)?.connect().await?;
                let store = Target::from_env(Side::Store)?.connect().await?;
                let since = since.map(instant).transpose()?.unwrap_or_else(|| two_years_before(Timestamp::now()));
                let record = table.zip(id).map(|(table, id)| Record { table, id });
                let notices = account::corrections(&hub, &store, &fps, record.as_ref(), since).await?;
                Ok((if output == Output::Json { json(&notices)? } else { notices_text(&notices) }, true))
            }
            Self::Export { partner, all: _, to } => {
                let mut hub = Target::from_env(Side::Hub)?.connect().await?;
                let file = File::create_new(&to)
                    .map_err(|e| Error::Config(format!("--to {} cannot be made: {e}", to.display())))?;
                let totals = export::export(&mut hub, partner.as_ref(), &mut BufWriter::new(file)).await?;
                let (statements, batches, entries) = (totals.statements, totals.batches, totals.entries);
                Ok((format!("{batches} batches, {entries} entries, {statements} statements\n"), true))
            }
            Self::Verify { file, root, partner, heads, output } => {
                let opened = File::open(&file)
                    .map_err(|e| Error::Config(format!("{} cannot be opened: {e}", file.display())))?;
                let root = root
                    .map(|path| {
                        std::fs::read_to_string(&path)
                            .map_err(|e| Error::Config(format!("--root {} cannot be read: {e}", path.display())))
                    })
                    .transpose()?;
                let mut verifier = Verifier::default();
                for mark in heads {
                    verifier.expect("the replica's cursor", mark);
                }
                let one = partner.as_ref().map(PartnerName::as_str);
                let verdict = export::verify(BufReader::new(opened), root.as_deref(), one, verifier)?;
                let well = verdict.findings.is_empty();
                Ok((if output == Output::Json { json(&verdict)? } else { verdict_text(&verdict) }, well))
            }
        }
    }
}

impl Disposal {
    /// The text, and whether all is well.
    pub async fn run(self) -> Result<(String, bool), Error> {
        let hub = Target::from_env(Side::Hub)?.connect().await?;
        match self {
            Self::List { output } => {
                let rows = retention::list(&hub).await?;
                if output == Output::Json {
                    return Ok((json(&rows)?, true));
                }
                let mut text = String::new();
                for row in rows {
                    let due = row.due.as_deref().unwrap_or("-");
                    let state = match (&row.disposed, row.hold.is_empty()) {
                        (Some(at), _) => format!("disposed of {at}"),
                        (None, true) => "kept".to_owned(),
                        (None, false) => format!("legal hold ({})", row.hold.join(", ")),
                    };
                    let _ = writeln!(text, "{}  {}  due {due} ({})  {state}", row.partner, row.agreement, row.cause);
                }
                Ok((text, true))
            }
            Self::Hold { partner } => {
                retention::set_hold(&hub, &partner, true).await?;
                Ok((format!("{partner}: legal hold\n"), true))
            }
            Self::Release { partner } => {
                retention::set_hold(&hub, &partner, false).await?;
                Ok((format!("{partner}: no legal hold of the hub's own\n"), true))
            }
        }
    }
}

/// What was accepted, for people.
fn accepted_text(accepted: Option<&Accepted>) -> String {
    let Some(Accepted { number, lost }) = accepted else {
        return "nothing is lost: the hub's ledger has all that the kept checkpoint names\n".to_owned();
    };
    let mut text =
        format!("accepted: the hub lacks the ends of {} chains that checkpoint {number} had seen\n", lost.len());
    for mark in lost {
        let _ = writeln!(text, "{}  batch {}  {}", mark.partner, mark.batch, mark.head);
    }
    text
}

/// The account, for people.
pub fn account_text(account: &Account) -> String {
    let Account { fps, files, disclosures, accesses } = account;
    if files.is_empty() {
        return format!("{fps}: no file has this number, and nothing of one that had it ever crossed\n");
    }
    let numbers: Vec<String> = files.iter().map(i64::to_string).collect();
    let mut text = format!("{fps}: file {}, {} disclosures\n", numbers.join(", "), disclosures.len());
    for d in disclosures {
        let _ = writeln!(
            text,
            "{}  {}  {}  {}  batch {} ({})  {}",
            d.at,
            d.partner,
            d.agreement,
            d.kind,
            d.batch,
            d.state,
            d.groups.join(", ")
        );
    }
    for a in accesses {
        let _ = writeln!(text, "{}  {}  {} by {} for {}: {}", a.at, a.partner, a.kind, a.officer, a.purpose, a.outcome);
    }
    text
}

/// The notices, for people.
pub fn notices_text(notices: &[Notice]) -> String {
    if notices.is_empty() {
        return "nobody received it: nobody is to be told\n".to_owned();
    }
    let mut text = String::new();
    for notice in notices {
        let Notice { partner, last_disclosed, replica, batch, at, differing } = notice;
        let standing = match replica {
            account::Standing::Current => "has it",
            account::Standing::Behind => "does not have it yet",
            account::Standing::Withdrawn => "no longer has the file",
            account::Standing::Disposed => "has no replica any more",
        };
        let _ = write!(text, "{partner}  last disclosed {last_disclosed}  {standing}");
        if let (Some(batch), Some(at)) = (batch, at) {
            let _ = write!(text, "  batch {batch} of {at}");
        }
        for (table, id) in differing {
            let _ = write!(text, "  {table} {id}");
        }
        text.push('\n');
    }
    text
}

/// The verdict, for people.
pub fn verdict_text(verdict: &Verdict) -> String {
    let Verdict { counted, partners, signed, unsigned, findings } = verdict;
    let mut text = format!(
        "{} batches of {partners} partners, {} entries, {signed} signed statements, {unsigned} not signed yet\n",
        counted.batches, counted.entries
    );
    for finding in findings {
        let batch = finding.batch.map(|b| format!(" batch {b}")).unwrap_or_default();
        let partner = if finding.partner.is_empty() { "ledger" } else { &finding.partner };
        let _ = writeln!(text, "{partner}{batch}: {}", finding.what);
    }
    text += if findings.is_empty() { "whole\n" } else { "NOT WHOLE\n" };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_say_what_they_must_be() {
        assert_eq!(fps("123456A").unwrap(), "123456A");
        for bad in ["123456", "123456a", "1234567A", "é23456A"] {
            assert!(fps(bad).unwrap_err().contains("such as 123456A"), "{bad}");
        }
        assert_eq!(head(&format!("vancouver-police:7:{}", "Ab".repeat(32))).unwrap().head, "ab".repeat(32));
        for bad in ["vancouver-police:7", "p:x:00", "p:1:00"] {
            assert!(head(bad).unwrap_err().contains("PARTNER:BATCH:HEX"), "{bad}");
        }
    }

    #[test]
    fn the_act_looks_back_two_years() {
        let now = "2028-02-29T12:00:00Z".parse().unwrap();
        assert_eq!(two_years_before(now).to_string(), "2026-02-28T12:00:00Z");
    }
}
