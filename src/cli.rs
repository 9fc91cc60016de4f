//! The command line (README, "Command line"): raw options first, then a request in which nothing
//! is left to check.

use std::ffi::OsString;

use lexopt::Arg::{Long, Short};
use lexopt::{Error, Parser};
use log::LevelFilter;

use crate::delivery::ParameterName;

/// What `--help` prints.
pub const HELP: &str = include_str!("../doc/help.txt");

/// The short usage behind a usage error: the help's own.
pub fn usage() -> String {
    let usage = HELP.split("\n\n").find_map(|part| part.strip_prefix("Usage: "));
    format!("usage: {}\ntry 'register-trust --help'", usage.unwrap_or_default())
}

/// What the command line asks for.
pub enum Command {
    Help,
    Version,
    Register(Request),
}

/// A trust to find or to register.
pub struct Request {
    /// Display name, stripped, not empty.
    pub name: String,
    /// Short code, stripped, not empty.
    pub code: Option<String>,
    /// NHS region, stripped, not empty.
    pub region: Option<String>,
    /// Never register.
    pub require_existing: bool,
    /// Where the kit goes; stdout if absent.
    pub parameter: Option<ParameterName>,
    /// `-v` or `-q`, which override `LOG_LEVEL`.
    pub verbosity: Option<LevelFilter>,
}

/// Reads the arguments that follow the program's name.
/// Errors: a usage error, in words: exit 2, nothing was done.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut parser = Parser::from_args(arguments);
    let (mut name, mut code, mut region, mut parameter) = (None, None, None, None);
    let (mut require_existing, mut quiet, mut verbose) = (None, None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("name") => text(&mut parser, "--name", &mut name)?,
            Long("code") => text(&mut parser, "--code", &mut code)?,
            Long("region") => text(&mut parser, "--region", &mut region)?,
            Long("out-ssm-parameter") => text(&mut parser, "--out-ssm-parameter", &mut parameter)?,
            Long("require-existing") => once(&mut require_existing, (), "--require-existing")?,
            Short('q') | Long("quiet") => once(&mut quiet, LevelFilter::Error, "--quiet")?,
            Short('v') | Long("verbose") => verbose = Some(LevelFilter::Debug),
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Command::Register(Request {
        name: stripped(name.ok_or("--name is required")?).ok_or("--name is blank")?,
        code: code.and_then(stripped),
        region: region.and_then(stripped),
        require_existing: require_existing.is_some(),
        parameter: parameter.map(ParameterName::parse).transpose()?,
        verbosity: quiet.or(verbose),
    }))
}

fn once<T>(slot: &mut Option<T>, value: T, option: &str) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{option} is given twice").into()),
    }
}

fn text(parser: &mut Parser, option: &str, slot: &mut Option<String>) -> Result<(), Error> {
    let value = match parser.optional_value() {
        Some(value) => value,
        // An option in the value's place means that the value was forgotten.
        None => parser
            .try_raw_args()
            .and_then(|mut rest| rest.next_if(|next| !next.as_encoded_bytes().starts_with(b"-")))
            .ok_or_else(|| {
                format!(
                    "{option} has no value (one that starts with '-' is written {option}=VALUE)"
                )
            })?,
    };
    let value = value.into_string().map_err(|_| format!("the value of {option} is not UTF-8"))?;
    once(slot, value, option)
}

fn stripped(value: String) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
