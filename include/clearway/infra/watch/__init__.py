"""What others are told of the loop: figures for alarms and dashboards, and notices for people."""
