"""The processes of a cluster: parent, sentinel, workers, scheduler and exporter."""
