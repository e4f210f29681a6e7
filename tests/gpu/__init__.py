"""The tests and measurements that need a card, on a machine that has one."""
