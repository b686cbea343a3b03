//! The only place that builds rustls configurations, for both directions.
