//! The settings of each application for a gateway that it reaches without TLS and without a login: what `waxseal init`
//! shows, and docs/applications.md explains. Plausible's are made by the gateway itself, which prints them at each start.

/// One application that sends mail.
#[derive(Debug)]
pub struct Application {
    pub name: &'static str,
    pub title: &'static str,
    /// The file or place of its settings.
    pub place: &'static str,
    /// With `{host}`, `{port}`, `{domain}`. Empty if the gateway makes them.
    template: &'static str,
}

pub const PLAUSIBLE: &str = "plausible";

const ALL: [Application; 8] = [
    Application { name: PLAUSIBLE, title: "Plausible", place: "its environment", template: "" },
    Application {
        name: "gitlab",
        title: "GitLab",
        place: "/etc/gitlab/gitlab.rb, then `gitlab-ctl reconfigure`",
        template: "gitlab_rails['smtp_enable'] = true\n\
                   gitlab_rails['smtp_address'] = '{host}'\n\
                   gitlab_rails['smtp_port'] = {port}\n\
                   gitlab_rails['smtp_tls'] = false\n\
                   gitlab_rails['smtp_enable_starttls_auto'] = false\n\
                   gitlab_rails['gitlab_email_from'] = 'gitlab@{domain}'\n\
                   gitlab_rails['gitlab_email_reply_to'] = 'gitlab@{domain}'\n",
    },
    Application {
        name: "grafana",
        title: "Grafana",
        place: "grafana.ini",
        template: "[smtp]\n\
                   enabled = true\n\
                   host = {host}:{port}\n\
                   startTLS_policy = NoStartTLS\n\
                   from_address = grafana@{domain}\n",
    },
    Application {
        name: "nextcloud",
        title: "Nextcloud",
        place: "config/config.php",
        template: "'mail_smtpmode' => 'smtp',\n\
                   'mail_smtphost' => '{host}',\n\
                   'mail_smtpport' => {port},\n\
                   'mail_smtpsecure' => '',\n\
                   'mail_smtpauth' => false,\n\
                   'mail_from_address' => 'nextcloud',\n\
                   'mail_domain' => '{domain}',\n",
    },
    Application {
        name: "ghost",
        title: "Ghost",
        place: "config.production.json",
        template: "\"mail\": {\n\
                   \x20 \"from\": \"ghost@{domain}\",\n\
                   \x20 \"transport\": \"SMTP\",\n\
                   \x20 \"options\": { \"host\": \"{host}\", \"port\": {port}, \"secure\": false, \"ignoreTLS\": true }\n\
                   }\n",
    },
    Application {
        name: "gitea",
        title: "Gitea",
        place: "app.ini",
        template: "[mailer]\n\
                   ENABLED = true\n\
                   PROTOCOL = smtp\n\
                   SMTP_ADDR = {host}\n\
                   SMTP_PORT = {port}\n\
                   FROM = gitea@{domain}\n",
    },
    Application {
        name: "authentik",
        title: "authentik",
        place: ".env",
        template: "AUTHENTIK_EMAIL__HOST={host}\n\
                   AUTHENTIK_EMAIL__PORT={port}\n\
                   AUTHENTIK_EMAIL__USE_TLS=false\n\
                   AUTHENTIK_EMAIL__USE_SSL=false\n\
                   AUTHENTIK_EMAIL__FROM=authentik@{domain}\n",
    },
    Application {
        name: "other",
        title: "The application",
        place: "its settings for SMTP",
        template: "server {host}, port {port}, no TLS, no login, sender anything@{domain}\n",
    },
];

pub fn names() -> [&'static str; ALL.len()] {
    ALL.each_ref().map(|application| application.name)
}

pub fn named(name: &str) -> Option<&'static Application> {
    ALL.iter().find(|application| application.name.eq_ignore_ascii_case(name))
}

impl Application {
    /// `None`: the gateway makes them.
    pub fn settings(&self, host: &str, port: u16, domain: &str) -> Option<String> {
        let filled = self.template.replace("{host}", host).replace("{port}", &port.to_string());
        (!filled.is_empty()).then(|| filled.replace("{domain}", domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/applications.md shows what `waxseal init` shows.
    #[test]
    fn the_guide_has_the_settings_of_each_application() {
        let page = include_str!("../../../docs/applications.md");
        for application in ALL.iter().filter(|application| application.name != "other") {
            let section = page.split("\n## ").find(|section| section.starts_with(application.title));
            let section = section.unwrap_or_else(|| panic!("{} has no section", application.title));
            if let Some(settings) = application.settings("127.0.0.1", 2525, "example.com") {
                assert!(section.contains(&settings), "{}: the page has not\n{settings}", application.title);
            }
        }
    }
}
