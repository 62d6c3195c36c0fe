//! The grammar of `CREATE TABLE`, item by item: a mistake in one item does not hide those of the next.

mod columns;

use arrow::datatypes::DataType;
use model::{Diagnostic, SqlStatement};
use sqlparser::dialect::GenericDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::computed::Metadata;
use super::types;

/// Arrays may nest so deep; deeper is refused, so that a file cannot exhaust the stack.
const ARRAY_DEPTH_MAX: usize = 8;

/// A place within a statement, as the tokenizer counts it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl At {
    pub(super) fn diagnostic(self, statement: &SqlStatement, message: impl Into<String>) -> Diagnostic {
        statement.diagnostic_at(self.line, self.column, message)
    }
}

pub(super) struct ParsedColumn {
    pub(super) name: String,
    pub(super) at: At,
    pub(super) data_type: DataType,
    pub(super) time_digits: u8,
    pub(super) nullable: bool,
    /// Read from the record rather than from its value.
    pub(super) metadata: Option<Metadata>,
}

/// `c AS expression`.
pub(super) struct ParsedComputed {
    pub(super) name: String,
    pub(super) at: At,
    /// The expression as SQL.
    pub(super) sql: String,
    /// Where it begins.
    pub(super) sql_at: At,
    /// How many columns stand before it, computed ones not counted.
    pub(super) after: usize,
}

pub(super) struct ParsedWatermark {
    pub(super) column: String,
    pub(super) at: At,
    pub(super) delay_us: i64,
}

pub(super) struct ParsedOption {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) at: At,
}

#[derive(Default)]
pub(super) struct Parsed {
    pub(super) name: String,
    pub(super) columns: Vec<ParsedColumn>,
    pub(super) computed: Vec<ParsedComputed>,
    pub(super) primary_key: Vec<(String, At)>,
    pub(super) watermark: Option<ParsedWatermark>,
    pub(super) options: Vec<ParsedOption>,
}

/// Parses one `CREATE TABLE`; mistakes go to `errors`. `None` if the rest cannot be made out.
pub(super) fn parse(statement: &SqlStatement, errors: &mut Vec<Diagnostic>) -> Option<Parsed> {
    let tokens = match Tokenizer::new(&GenericDialect {}, &statement.sql).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(e) => {
            let at = At { line: position(e.location.line), column: position(e.location.column) };
            errors.push(at.diagnostic(statement, e.message));
            return None;
        }
    };
    let tokens = tokens
        .into_iter()
        .filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF | Token::SemiColon))
        .map(|t| (t.token, At { line: position(t.span.start.line), column: position(t.span.start.column) }))
        .collect();
    let mut parser = Parser { statement, tokens, at: 0 };
    match parser.create_table(errors) {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            errors.push(*error);
            None
        }
    }
}

fn position(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

struct Parser<'a> {
    statement: &'a SqlStatement,
    tokens: Vec<(Token, At)>,
    at: usize,
}

impl Parser<'_> {
    fn create_table(&mut self, errors: &mut Vec<Diagnostic>) -> Result<Parsed> {
        self.words(&["CREATE"])?;
        self.accept("TEMPORARY");
        self.words(&["TABLE"])?;
        if self.accept("IF") {
            self.words(&["NOT", "EXISTS"])?;
        }
        let mut parsed = Parsed { name: self.identifier("a table name")?.0, ..Parsed::default() };
        if self.peek() == Some(&Token::Period) {
            let help = "write the table's name alone; there are no catalogs or databases here";
            return Err(Box::new(self.error("a dot in the table's name").with_help(help)));
        }
        self.expect(&Token::LParen)?;
        loop {
            if let Err(error) = self.item(&mut parsed) {
                errors.push(*error);
                self.skip_item();
            }
            match self.next() {
                Some((Token::Comma, _)) => {}
                Some((Token::RParen, _)) => break,
                _ => {
                    self.at = self.at.saturating_sub(1);
                    return Err(Box::new(self.error("expected a comma or a closing parenthesis")));
                }
            }
        }
        if self.accept("COMMENT") {
            self.string()?;
        }
        if self.is_word("PARTITIONED") || self.is_word("LIKE") || self.is_word("DISTRIBUTED") {
            return Err(Box::new(
                self.error("this clause is not supported").with_help("a source table needs only WITH"),
            ));
        }
        self.with_clause(&mut parsed)?;
        match self.tokens.get(self.at) {
            Some(_) => Err(Box::new(self.error("expected the end of the statement"))),
            None => Ok(parsed),
        }
    }

    fn item(&mut self, parsed: &mut Parsed) -> Result<()> {
        if self.is_word("PRIMARY") || self.is_word("CONSTRAINT") {
            if self.accept("CONSTRAINT") {
                self.identifier("a constraint name")?;
            }
            let at = self.here();
            self.words(&["PRIMARY", "KEY"])?;
            let names = self.key_columns()?;
            if !parsed.primary_key.is_empty() {
                return Err(Box::new(at.diagnostic(self.statement, "a table has one primary key")));
            }
            parsed.primary_key = names;
            return self.not_enforced();
        }
        if self.is_word("WATERMARK") {
            let at = self.here();
            let watermark = self.watermark()?;
            if parsed.watermark.replace(watermark).is_some() {
                return Err(Box::new(at.diagnostic(self.statement, "a table has one watermark")));
            }
            return Ok(());
        }
        self.column(parsed)
    }

    fn column(&mut self, parsed: &mut Parsed) -> Result<()> {
        let (name, at) = self.identifier("a column name")?;
        if self.accept("AS") {
            let computed = self.computed(name, at, parsed.columns.len())?;
            parsed.computed.push(computed);
            return Ok(());
        }
        let (data_type, time_digits) = self.data_type(0)?;
        let mut column = ParsedColumn { name, at, data_type, time_digits, nullable: true, metadata: None };
        loop {
            if self.is_word("METADATA") {
                self.metadata(&mut column)?;
            } else if self.accept("NOT") {
                self.words(&["NULL"])?;
                column.nullable = false;
            } else if self.accept("NULL") {
                column.nullable = true;
            } else if self.accept("COMMENT") {
                self.string()?;
            } else if self.accept("PRIMARY") {
                self.words(&["KEY"])?;
                self.not_enforced()?;
                parsed.primary_key.push((column.name.clone(), at));
            } else {
                break;
            }
        }
        if !matches!(self.peek(), None | Some(Token::Comma | Token::RParen)) {
            return Err(Box::new(self.error(format!("unexpected text after the type of column {}", column.name))));
        }
        parsed.columns.push(column);
        Ok(())
    }

    fn data_type(&mut self, depth: usize) -> Result<types::Typed> {
        let (name, at) = self.identifier("a type")?;
        let name = name.to_ascii_uppercase();
        if name == "ARRAY" {
            if depth >= ARRAY_DEPTH_MAX {
                return Err(Box::new(at.diagnostic(self.statement, "arrays are nested too deeply")));
            }
            self.expect(&Token::Lt)?;
            let (element, digits) = self.data_type(depth + 1)?;
            if self.accept("NOT") {
                self.words(&["NULL"])?;
            }
            self.close_angle()?;
            return Ok((types::array(element), digits));
        }
        if name == "DOUBLE" {
            self.accept("PRECISION");
        }
        let mut args = Vec::new();
        if self.peek() == Some(&Token::LParen) && name != "ROW" {
            self.at += 1;
            loop {
                args.push(self.number()?);
                if self.peek() != Some(&Token::Comma) {
                    break;
                }
                self.at += 1;
            }
            self.expect(&Token::RParen)?;
        }
        let mut local_zone = false;
        if self.is_word("WITH") || self.is_word("WITHOUT") {
            let without = self.is_word("WITHOUT");
            self.at += 1;
            local_zone = self.accept("LOCAL");
            if !without && !local_zone {
                let help = "write TIMESTAMP_LTZ(p)";
                return Err(Box::new(self.error("WITH TIME ZONE is not supported").with_help(help)));
            }
            self.words(&["TIME", "ZONE"])?;
        }
        types::simple(&name, &args, local_zone).map_err(|(message, help)| {
            let diagnostic = at.diagnostic(self.statement, message);
            Box::new(match help {
                Some(help) => diagnostic.with_help(help),
                None => diagnostic,
            })
        })
    }

    /// The `>` that ends an array type; `>>` ends two.
    fn close_angle(&mut self) -> Result<()> {
        if let Some((token @ Token::ShiftRight, _)) = self.tokens.get_mut(self.at) {
            *token = Token::Gt;
            return Ok(());
        }
        self.expect(&Token::Gt)
    }

    fn watermark(&mut self) -> Result<ParsedWatermark> {
        const HELP: &str = "write WATERMARK FOR ts AS ts, or AS ts - INTERVAL '5' MINUTE";
        self.words(&["WATERMARK", "FOR"])?;
        let (column, at) = self.identifier("a column name")?;
        self.words(&["AS"])?;
        let (second, second_at) = self.identifier("the same column again")?;
        if second != column {
            let message = format!("the watermark of {column} must be derived from {column}");
            return Err(Box::new(second_at.diagnostic(self.statement, message).with_help(HELP)));
        }
        let mut delay_us = 0;
        if self.peek() == Some(&Token::Minus) {
            self.at += 1;
            self.words(&["INTERVAL"])?;
            let at = self.here();
            let count = self.string()?;
            let (unit, unit_at) = self.identifier("a time unit")?;
            let unit_us = match unit.to_ascii_uppercase().trim_end_matches('S') {
                "SECOND" => 1_000_000,
                "MINUTE" => 60_000_000,
                "HOUR" => 3_600_000_000,
                "DAY" => 86_400_000_000_i64,
                _ => {
                    let message = format!("unknown time unit {unit}");
                    let help = "the units are SECOND, MINUTE, HOUR, DAY";
                    return Err(Box::new(unit_at.diagnostic(self.statement, message).with_help(help)));
                }
            };
            delay_us = match count.trim().parse::<f64>() {
                // Fractions of a second are common ('0.001' SECOND); microseconds are exact enough for them.
                #[expect(clippy::cast_possible_truncation, reason = "bounded by the check")]
                Ok(n) if n >= 0.0 && n * unit_us as f64 <= 1e17 => (n * unit_us as f64).round() as i64,
                _ => {
                    let message = format!("'{count}' is no positive number");
                    return Err(Box::new(at.diagnostic(self.statement, message).with_help(HELP)));
                }
            };
        }
        if !matches!(self.peek(), None | Some(Token::Comma | Token::RParen)) {
            return Err(Box::new(self.error("this watermark is not supported").with_help(HELP)));
        }
        Ok(ParsedWatermark { column, at, delay_us })
    }

    fn key_columns(&mut self) -> Result<Vec<(String, At)>> {
        self.expect(&Token::LParen)?;
        let mut names = vec![self.identifier("a column name")?];
        while self.peek() == Some(&Token::Comma) {
            self.at += 1;
            names.push(self.identifier("a column name")?);
        }
        self.expect(&Token::RParen)?;
        Ok(names)
    }

    fn not_enforced(&mut self) -> Result<()> {
        if self.is_word("NOT") && self.tokens.get(self.at + 1).is_some_and(|t| is_word(&t.0, "ENFORCED")) {
            self.at += 2;
            return Ok(());
        }
        let help = "write PRIMARY KEY (…) NOT ENFORCED: the ERP's database enforces it";
        Err(Box::new(self.error("the primary key lacks NOT ENFORCED").with_help(help)))
    }

    fn with_clause(&mut self, parsed: &mut Parsed) -> Result<()> {
        if !self.accept("WITH") {
            let help = "add WITH ('connector' = 'kafka', 'topic' = '…', 'format' = 'debezium-json')";
            return Err(Box::new(self.error("expected WITH").with_help(help)));
        }
        self.expect(&Token::LParen)?;
        loop {
            let at = self.here();
            let name = self.string()?;
            self.expect(&Token::Eq)?;
            let value = self.string()?;
            parsed.options.push(ParsedOption { name, value, at });
            if self.peek() != Some(&Token::Comma) {
                break;
            }
            self.at += 1;
        }
        self.expect(&Token::RParen)
    }

    /// Moves to the comma or parenthesis that ends the current item.
    fn skip_item(&mut self) {
        let mut depth = 0_usize;
        while let Some(token) = self.peek() {
            match token {
                Token::LParen | Token::Lt => depth += 1,
                Token::RParen | Token::Comma if depth == 0 => return,
                Token::RParen | Token::Gt => depth = depth.saturating_sub(1),
                Token::ShiftRight => depth = depth.saturating_sub(2),
                Token::Comma => {}
                _ => {}
            }
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.0)
    }

    fn next(&mut self) -> Option<(Token, At)> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    /// Place of the current token, or of the last one at the end.
    fn here(&self) -> At {
        self.tokens.get(self.at).or(self.tokens.last()).map(|t| t.1).unwrap_or_default()
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        let message: String = message.into();
        let found = match self.peek() {
            Some(token) => format!("{message}, found {token}"),
            None => format!("{message}, found the end of the statement"),
        };
        self.here().diagnostic(self.statement, found)
    }

    fn is_word(&self, word: &str) -> bool {
        self.peek().is_some_and(|t| is_word(t, word))
    }

    fn accept(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn words(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.accept(word) {
                return Err(Box::new(self.error(format!("expected {word}"))));
            }
        }
        Ok(())
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        if self.peek() == Some(token) {
            self.at += 1;
            return Ok(());
        }
        Err(Box::new(self.error(format!("expected {token}"))))
    }

    fn identifier(&mut self, what: &str) -> Result<(String, At)> {
        let at = self.here();
        match self.peek() {
            Some(Token::Word(word)) => {
                let name = word.value.clone();
                self.at += 1;
                Ok((name, at))
            }
            _ => Err(Box::new(self.error(format!("expected {what}")))),
        }
    }

    fn string(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::SingleQuotedString(text)) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(Box::new(self.error("expected a text in single quotes"))),
        }
    }

    fn number(&mut self) -> Result<u64> {
        match self.peek() {
            Some(Token::Number(text, _)) => match text.parse() {
                Ok(n) => {
                    self.at += 1;
                    Ok(n)
                }
                Err(_) => Err(Box::new(self.error("expected a whole number"))),
            },
            _ => Err(Box::new(self.error("expected a number"))),
        }
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
