// Package l2test holds the switch to what the Linux bridge's selftests ask of a
// learning bridge (tools/testing/selftests/net/forwarding): the vswitch binary as
// users run it, between hosts in network namespaces. It has tests only. Each draws
// its hosts; h1 is behind port p1, and so on, and an arrow shows what a test joins.
package l2test
