"""One thin file per host, each written on the public `costspan.adapter`."""
