package stp

import (
	"strings"
	"testing"
)

func TestConfigCheck(t *testing.T) {
	for _, c := range []struct {
		change func(c *Config)
		wrong  string
	}{
		{func(c *Config) {}, ""},
		{func(c *Config) { c.Priority = 0 }, ""},
		{func(c *Config) { c.HelloTime, c.MaxAge, c.ForwardDelay = 1, 6, 4 }, ""},
		{func(c *Config) { c.Address = [6]byte{} }, "address of one station"},
		{func(c *Config) { c.Address[0] = 1 }, "address of one station"},
		{func(c *Config) { c.Priority = 1000 }, "multiple of 4096"},
		{func(c *Config) { c.HelloTime = 0 }, "hello time 0"},
		{func(c *Config) { c.MaxAge = 41 }, "max age 41"},
		{func(c *Config) { c.ForwardDelay = 3 }, "forward delay 3"},
		{func(c *Config) { c.TxHoldCount = 11 }, "transmit hold count 11"},
		{func(c *Config) { c.GuardRecovery = -1 }, "guard recovery -1"},
		{func(c *Config) { c.GuardRecovery = 1<<30 + 1 }, "guard recovery 1073741825"},
		{func(c *Config) { c.GuardRecovery = 1 << 30 }, ""},
		{func(c *Config) { c.HelloTime, c.MaxAge, c.ForwardDelay = 11, 40, 30 }, "hello time 11"},
		{func(c *Config) { c.HelloTime, c.MaxAge, c.ForwardDelay = 10, 40, 30 }, ""},
		{func(c *Config) { c.MaxAge = 5 }, "max age 5"},
		{func(c *Config) { c.ForwardDelay = 31 }, "forward delay 31"},
		{func(c *Config) { c.TxHoldCount = 0 }, "transmit hold count 0"},
		{func(c *Config) { c.TxHoldCount = 1 }, ""},
		{func(c *Config) { c.TxHoldCount = 10 }, ""},
		{func(c *Config) { c.ForwardDelay = 10 }, "18 at most"},
		{func(c *Config) { c.HelloTime = 10 }, "22 at least"},
	} {
		cfg := testConfig()
		c.change(&cfg)
		_, err := New(cfg, nil)
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%+v: %v, want %q", cfg, err, c.wrong)
		}
	}
	b, _ := twoPorts(t)
	for i, err := range []error{
		b.Configure(Config{}),
		b.AddPort(0, DefaultPort()),
		b.AddPort(MaxPort+1, DefaultPort()),
		b.AddPort(1, DefaultPort()),
		b.AddPort(3, PortConfig{Priority: 1}),
		b.AddPort(3, PortConfig{PathCost: maxPathCost + 1}),
		b.SetPort(3, DefaultPort()),
		b.SetPort(1, PortConfig{Priority: 1}),
	} {
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d: %v", i, err)
		}
	}
	if len(b.ports) != 2 {
		t.Errorf("%d ports", len(b.ports))
	}
}

func TestPathCostTable17_3(t *testing.T) {
	for speed, want := range map[uint64]uint32{
		1: 200_000_000, 100e3: 200_000_000, 1e6: 20_000_000, 10e6: 2_000_000, 100e6: 200_000, 1e9: 20_000,
		10e9: 2000, 100e9: 200, 1e12: 20, 10e12: 2, 100e12: 1, 2.5e9: 8000, 0: 20_000,
	} {
		if got := PathCost(speed); got != want {
			t.Errorf("%d bit/s costs %d, want %d", speed, got, want)
		}
	}
}
