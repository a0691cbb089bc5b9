module github.com/vswitch/vswitch/bench/peers

go 1.25.0

require (
	github.com/puzpuzpuz/xsync/v4 v4.5.0
	github.com/vswitch/vswitch v0.0.0
	golang.org/x/sys v0.47.0
)

replace github.com/vswitch/vswitch => ../..
