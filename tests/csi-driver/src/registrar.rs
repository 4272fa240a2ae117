//! What node-driver-registrar does beside a real driver.

use std::path::PathBuf;
use std::sync::Arc;

use tonic::{Request, Response, Status};
use trireme_proto::pluginregistration::registration_server::Registration;
use trireme_proto::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

use crate::{Faults, Options, faults};

pub(crate) struct Registrar {
    pub(crate) options: Arc<Options>,
    pub(crate) endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Faults::new(&self.options.data).obey("GetInfo").await?;
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.options.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        let said = if status.plugin_registered { "registered".to_owned() } else { format!("not registered: {}", status.error) };
        faults::note(&self.options.data, &format!("NotifyRegistrationStatus {said}"));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
