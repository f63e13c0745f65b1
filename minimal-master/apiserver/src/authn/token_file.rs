//! Static bearer tokens, in upstream's CSV: `token,user,uid,"group1,group2"`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::User;

/// What is wrong with a token file.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It can't be read.
    #[error("cannot read the token file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line does not have the columns it needs.
    #[error("{path}:{line}: expected token,user,uid[,\"group1,group2\"]: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Users by token.
#[derive(Debug, Default)]
pub struct TokenFile(HashMap<String, User>);

impl TokenFile {
    /// Reads a file; every line must be right.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (token, user) = parse(line).map_err(|problem| TokenFileError::Line {
                path: path.to_owned(),
                line: index + 1,
                problem,
            })?;
            users.insert(token, user);
        }
        Ok(Self(users))
    }

    pub(super) fn user(&self, token: &str) -> Option<&User> {
        self.0.get(token)
    }
}

fn parse(line: &str) -> Result<(String, User), &'static str> {
    let columns = split(line)?;
    let [token, name, uid, rest @ ..] = &columns[..] else {
        return Err("fewer than three columns");
    };
    if token.is_empty() || name.is_empty() {
        return Err("empty token or user name");
    }
    let groups = rest.first().map(String::as_str).unwrap_or_default();
    let groups = groups
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(str::to_owned);
    Ok((token.clone(), User::new(name, uid, groups.collect())))
}

/// Splits a CSV line; a column in quotes may hold commas and doubled quotes.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        let column = columns.last_mut().ok_or("no column")?;
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                column.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => columns.push(String::new()),
            other => column.push(other),
        }
    }
    if quoted {
        return Err("a quote is not closed");
    }
    Ok(columns
        .into_iter()
        .map(|column| column.trim().to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_users_and_groups() {
        let (token, user) = parse(r#"s3cret, jane, 42, "dev,ops""#).unwrap();
        assert_eq!(token, "s3cret");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "42"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.csv");
        std::fs::write(&path, "# tokens\na,b,c\n\nonly,two\n").unwrap();
        let error = TokenFile::read(&path).unwrap_err().to_string();
        assert!(
            error.contains("tokens.csv:4:") && error.contains("three columns"),
            "{error}"
        );
    }

    #[test]
    fn refuses_an_open_quote() {
        assert!(parse(r#"a,b,c,"x"#).is_err());
    }
}
