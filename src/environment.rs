//! Reading one variable of the environment. An empty one is unset.

use std::env;
use std::ffi::OsString;

use crate::error::Failure;

/// The value as it is.
pub fn raw(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

/// The value, if it is text: for variables that other programs read, too.
pub fn text(variable: &str) -> Option<String> {
    raw(variable)?.into_string().ok()
}

/// Whether the variable says `true`, in any case.
pub fn is_true(variable: &str) -> bool {
    text(variable).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The value as text.
/// Errors: it is not text. It is not repeated, because it may be a secret.
pub fn optional(variable: &str) -> Result<Option<String>, Failure> {
    let not_utf8 = |_| wrong(format!("{variable} is not UTF-8"), variable);
    raw(variable).map(|value| value.into_string().map_err(not_utf8)).transpose()
}

/// The first of these that is set.
/// Errors: none of them is set.
pub fn required(variables: &[&'static str]) -> Result<(&'static str, String), Failure> {
    for variable in variables {
        if let Some(value) = optional(variable)? {
            return Ok((variable, value));
        }
    }
    let variable = variables.first().copied().unwrap_or_default();
    Err(Failure::new(format!("{variable} is not set"), format!("set {variable} and run again")))
}

/// What the value means among these words.
/// Errors: it is not one of them.
pub fn one_of<T: Copy>(
    variable: &str,
    words: &[(&str, T)],
    fold: fn(&str) -> String,
) -> Result<Option<T>, Failure> {
    let Some(value) = optional(variable)? else {
        return Ok(None);
    };
    match words.iter().find(|(word, _)| fold(&value) == *word) {
        Some((_, meaning)) => Ok(Some(*meaning)),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            Err(invalid(variable, &value, &format!("not one of {}", words.join(", "))))
        }
    }
}

/// Whether the variable says `true`, as AWS's SDKs read it.
/// Errors: it says neither `true` nor `false`.
pub fn flag(variable: &str) -> Result<bool, Failure> {
    let words = [("true", true), ("false", false)];
    Ok(one_of(variable, &words, str::to_ascii_lowercase)?.unwrap_or(false))
}

/// A value that cannot be used; it holds no secret.
pub fn invalid(variable: &str, value: &str, problem: &str) -> Failure {
    wrong(format!("{variable} is {value:?}, {problem}"), variable)
}

/// A value that cannot be used, and is not repeated.
pub fn wrong(what: String, variable: &str) -> Failure {
    Failure::new(what, format!("correct {variable} and run again"))
}
