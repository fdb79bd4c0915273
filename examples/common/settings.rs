//! Environment variables as the fields of `ResourceServerSettings` and `ClientSettings`.

use figment::Figment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower_oauth::ConfigError;

use super::{SettingError, endpoint, raw_variable, variable};

/// A variable, and the field of the settings that it is.
#[derive(Clone, Copy)]
pub struct Field {
    variable: &'static str,
    path: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Rule,
    Single,
    Url,
}

/// A text, without the white space around it. An empty one counts as unset.
pub const fn text_variable(variable: &'static str, path: &'static str) -> Field {
    Field::new(variable, path, Kind::Text)
}

/// A rule for tokens. An empty text is an error, because without the rule more tokens are accepted.
pub const fn rule_variable(variable: &'static str, path: &'static str) -> Field {
    Field::new(variable, path, Kind::Rule)
}

/// A text that is one value of a list, even with a comma.
pub const fn single_variable(variable: &'static str, path: &'static str) -> Field {
    Field::new(variable, path, Kind::Single)
}

/// A URL. Plain http is for loopback and the hosts of `ALLOW_HTTP`.
pub const fn url_variable(variable: &'static str, path: &'static str) -> Field {
    Field::new(variable, path, Kind::Url)
}

/// The values of variables. Errors name the variable.
///
/// A value is the text of the variable. figment's `Env` reads numbers, quotes and brackets in it,
/// which a client secret may contain.
pub struct Settings {
    fields: Vec<Field>,
    values: Figment,
}

impl Settings {
    /// Reads the variables.
    ///
    /// # Errors
    ///
    /// If a value is not UTF-8, or a URL is none or plain http.
    pub fn from_env(fields: impl Into<Vec<Field>>) -> Result<Self, SettingError> {
        let fields = fields.into();
        let mut values = Figment::new();
        for field in &fields {
            let text = match field.kind {
                Kind::Rule => raw_variable(field.variable)?,
                _ => variable(field.variable)?,
            };
            let Some(text) = text else { continue };
            if let Kind::Url = field.kind {
                endpoint(field.variable, &text)?;
            }
            values = match field.kind {
                Kind::Single => values.merge((field.path, [text])),
                _ => values.merge((field.path, text)),
            };
        }
        Ok(Self { fields, values })
    }

    /// Checks that the variables are set.
    ///
    /// # Errors
    ///
    /// If one is not.
    pub fn required(self, variables: &[&str]) -> Result<Self, SettingError> {
        let mut fields = self.fields.iter();
        let unset = fields
            .find(|field| variables.contains(&field.variable) && !self.values.contains(field.path));
        match unset {
            Some(field) => Err(SettingError::new(field.variable, "is not set")),
            None => Ok(self),
        }
    }

    /// Whether the field has a value.
    pub fn has(&self, path: &str) -> bool {
        self.values.contains(path)
    }

    /// Sets a field, in place of the value of a variable.
    pub fn set(self, path: &str, value: impl Serialize) -> Self {
        let values = self.values.merge((path, value));
        Self { values, ..self }
    }

    /// Makes a builder of the settings.
    ///
    /// # Errors
    ///
    /// If a value is not valid, or the values do not fit together.
    pub fn builder<S: DeserializeOwned, B>(
        &self,
        to_builder: impl FnOnce(&S) -> Result<B, ConfigError>,
    ) -> Result<B, SettingError> {
        let settings: S = self.values.extract().map_err(|error| {
            let path = error.path.join(".");
            SettingError::new(self.variable(&path), error.kind)
        })?;
        to_builder(&settings).map_err(|error| self.error(error))
    }

    /// Names variables in place of fields in the error of a builder.
    pub fn error(&self, error: ConfigError) -> SettingError {
        let paths = error.setting().split(" or ");
        let variables: Vec<&str> = paths.map(|path| self.variable(path)).collect();
        let variables = variables.join(" or ");
        let SettingError(mut text) = error.with_setting(variables).into();
        for field in &self.fields {
            text = text.replace(&format!("`{}`", field.name()), field.variable);
        }
        SettingError(text)
    }

    /// The variable of a field, of which a builder may give the name alone, or with spaces in it,
    /// or with the path of a file after it.
    fn variable<'p>(&self, path: &'p str) -> &'p str {
        let name = path.replace(' ', "_");
        let mut fields = self.fields.iter();
        let field = fields.find(|field| field.path == path || field.name() == name);
        let mut fields = self.fields.iter();
        let field = field.or_else(|| {
            fields.find(|field| {
                let setting = field.name().replace('_', " ");
                setting.ends_with(" file") && path.starts_with(&format!("{setting} "))
            })
        });
        field.map_or(path, |field| field.variable)
    }
}

impl Field {
    const fn new(variable: &'static str, path: &'static str, kind: Kind) -> Self {
        Self {
            variable,
            path,
            kind,
        }
    }

    /// The last part of the path.
    fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or_default()
    }
}
