package main

import (
	"github.com/vswitch/vswitch/internal/daemon"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/feature/loopguard"
	"github.com/vswitch/vswitch/internal/setting"
)

// features are what this program's switches host beside ports. To add one, add a line.
var features = []feature.Feature{
	loopguard.Feature,
}

// switchFields are the settings of a switch.
func switchFields() []setting.Field { return daemon.SettingFields(features) }
