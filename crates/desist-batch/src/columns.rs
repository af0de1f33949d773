//! Which columns of a file hold identifiers: `HEADER:KIND` or `HEADER:KIND:sha256`.

use std::str::FromStr;

use desist_core::identifier::{Kind, UnknownKind};
use desist_core::limits::NAMED_MAX;

/// One column that holds identifiers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Column {
    /// Its name in the first row.
    pub header: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether its cells are SHA-256 digests of the normal form, as hexadecimal digits.
    pub sha256: bool,
}

/// Why columns cannot be understood. The text is the operator's own command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// No kind.
    #[error("{0:?}: write HEADER:KIND or HEADER:KIND:sha256, such as \"E-mail address:email\"")]
    Shape(String),
    /// Kind and header changed places.
    #[error("{0:?} looks swapped: the header of the file comes first, then its kind; perhaps {1:?}? ({unknown})", unknown = UnknownKind)]
    Swapped(String, String),
    /// No such kind.
    #[error("{0:?}: {1}")]
    Kind(String, UnknownKind),
    /// Other than sha256.
    #[error("{0:?}: the only digest is sha256, as in \"hashed:email:sha256\"; digests made by other recipes meet nobody")]
    Digest(String),
    /// The same header twice.
    #[error("the column {0:?} is named twice")]
    Twice(String),
    /// None, or more than one request may name.
    #[error("name 1 to {NAMED_MAX} columns, each as HEADER:KIND, such as \"E-mail address:email\"; these are {0}")]
    Count(usize),
}

impl FromStr for Column {
    type Err = ColumnsError;

    fn from_str(text: &str) -> Result<Self, ColumnsError> {
        let shape = || ColumnsError::Shape(text.to_owned());
        // From the right: a header may have colons of its own.
        let (rest, last) = text.rsplit_once(':').ok_or_else(shape)?;
        let (rest, last) = (rest.trim(), last.trim());
        let (header, kind, sha256) = match rest.rsplit_once(':') {
            Some((header, kind))
                if last.eq_ignore_ascii_case("sha256") || kind.trim().parse::<Kind>().is_ok() && last.parse::<Kind>().is_err() =>
            {
                if !last.eq_ignore_ascii_case("sha256") {
                    return Err(ColumnsError::Digest(text.to_owned()));
                }
                (header.trim(), kind.trim(), true)
            }
            _ => (rest, last, false),
        };
        if header.is_empty() {
            return Err(shape());
        }
        match kind.parse() {
            Ok(kind) => Ok(Self { header: header.to_owned(), kind, sha256 }),
            Err(unknown) => {
                let (first, others) = text.split_once(':').ok_or_else(shape)?;
                let first = first.trim();
                if first.parse::<Kind>().is_ok() && !others.trim().is_empty() {
                    let others = others.trim();
                    let right = match others.strip_prefix("sha256:").or_else(|| others.strip_suffix(":sha256")) {
                        Some(header) => format!("{header}:{first}:sha256"),
                        None => format!("{others}:{first}"),
                    };
                    return Err(ColumnsError::Swapped(text.to_owned(), right));
                }
                Err(ColumnsError::Kind(text.to_owned(), unknown))
            }
        }
    }
}

/// The columns of one file, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// Checks that they go together.
    pub fn new(columns: Vec<Column>) -> Result<Self, ColumnsError> {
        if columns.is_empty() || columns.len() > NAMED_MAX {
            return Err(ColumnsError::Count(columns.len()));
        }
        for (place, column) in columns.iter().enumerate() {
            if columns[..place].iter().any(|other| other.header == column.header) {
                return Err(ColumnsError::Twice(column.header.clone()));
            }
        }
        Ok(Self(columns))
    }

    /// Each of them.
    pub fn as_slice(&self) -> &[Column] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_command_line() {
        let column = |header: &str, kind, sha256| Ok(Column { header: header.to_owned(), kind, sha256 });
        assert_eq!("email:email".parse(), column("email", Kind::Email, false));
        assert_eq!("E-mail address: email".parse(), column("E-mail address", Kind::Email, false));
        assert_eq!("hashed:email:sha256".parse(), column("hashed", Kind::Email, true));
        assert_eq!("hashed:email:SHA256".parse(), column("hashed", Kind::Email, true));
        assert_eq!("a:b:phone".parse(), column("a:b", Kind::Phone, false));
        assert_eq!("email:phone".parse(), column("email", Kind::Phone, false));
        assert_eq!("x:email:phone".parse(), column("x:email", Kind::Phone, false));
        for shape in ["email", "", ":email", " :email:sha256"] {
            assert!(matches!(shape.parse::<Column>(), Err(ColumnsError::Shape(_))), "{shape}");
        }
        for (swapped, right) in [
            ("email:Mail", "Mail:email"),
            ("phone: Cell number ", "Cell number:phone"),
            ("email:sha256:hash", "hash:email:sha256"),
            ("email:hash:sha256", "hash:email:sha256"),
        ] {
            assert_eq!(swapped.parse::<Column>(), Err(ColumnsError::Swapped(swapped.to_owned(), right.to_owned())));
        }
        assert!(matches!("a:mail".parse::<Column>(), Err(ColumnsError::Kind(..))));
        assert!(matches!("hashed:email:md5".parse::<Column>(), Err(ColumnsError::Digest(_))));
        let (one, two) = ("a:email".parse::<Column>().unwrap(), "a:phone".parse::<Column>().unwrap());
        assert_eq!(Columns::new(vec![one.clone(), two]), Err(ColumnsError::Twice("a".to_owned())));
        assert_eq!(Columns::new(vec![]), Err(ColumnsError::Count(0)));
        let many = (0..=NAMED_MAX).map(|n| Column { header: n.to_string(), ..one.clone() });
        assert_eq!(Columns::new(many.collect()), Err(ColumnsError::Count(NAMED_MAX + 1)));
    }
}
