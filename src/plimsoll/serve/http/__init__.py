"""What the service speaks over HTTP: each file here holds the endpoints of one interface, as `routes(service)`."""
