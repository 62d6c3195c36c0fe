//! Columns that are not in the records: `c AS expression` and `c type METADATA FROM 'key'`.

use sqlparser::tokenizer::Token;

use super::super::computed::Metadata;
use super::{At, ParsedColumn, ParsedComputed, Parser, Result, is_word};

impl Parser<'_> {
    /// The expression of a computed column, up to the end of its item.
    pub(super) fn computed(&mut self, name: String, at: At, after: usize) -> Result<ParsedComputed> {
        let sql_at = self.here();
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(token) = self.peek() {
            match token {
                Token::LParen => depth += 1,
                Token::RParen | Token::Comma if depth == 0 => break,
                Token::RParen => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        let mut tokens = &self.tokens[start..self.at];
        if let [rest @ .., (Token::Word(word), _), (Token::SingleQuotedString(_), _)] = tokens
            && word.value.eq_ignore_ascii_case("COMMENT")
        {
            tokens = rest;
        }
        if tokens.is_empty() {
            return Err(Box::new(self.error(format!("expected the expression of column {name}"))));
        }
        if tokens.first().is_some_and(|t| is_word(&t.0, "PROCTIME")) {
            let message = "there is no processing time here: every result follows from the data";
            let help = "leave the column out; write CURRENT_TIMESTAMP in the query for the time now";
            return Err(Box::new(sql_at.diagnostic(self.statement, message).with_help(help)));
        }
        let sql = tokens.iter().map(|(token, _)| written(token)).collect::<Vec<_>>().join(" ");
        Ok(ParsedComputed { name, at, sql, sql_at, after })
    }

    /// `METADATA [FROM 'key'] [VIRTUAL]`.
    pub(super) fn metadata(&mut self, column: &mut ParsedColumn) -> Result<()> {
        let mut at = self.here();
        self.words(&["METADATA"])?;
        let mut key = column.name.clone();
        if self.accept("FROM") {
            at = self.here();
            key = self.string()?;
        }
        self.accept("VIRTUAL");
        let Some(metadata) = Metadata::of_key(&key) else {
            let help = "the keys are 'timestamp', 'offset', 'partition' and 'topic'";
            let message = format!("unknown metadata key '{key}'");
            return Err(Box::new(at.diagnostic(self.statement, message).with_help(help)));
        };
        if !metadata.fits(&column.data_type) {
            let message = format!("metadata '{key}' cannot be read into this type");
            return Err(Box::new(column.at.diagnostic(self.statement, message).with_help(metadata.declaration())));
        }
        column.metadata = Some(metadata);
        Ok(())
    }
}

/// A token as it can be parsed again.
fn written(token: &Token) -> String {
    match token {
        Token::SingleQuotedString(text) => format!("'{}'", text.replace('\'', "''")),
        other => other.to_string(),
    }
}
