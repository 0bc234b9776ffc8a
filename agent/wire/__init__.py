"""What both ends of the broker say: topics and messages. Pure: no MQTT, no crypto."""
