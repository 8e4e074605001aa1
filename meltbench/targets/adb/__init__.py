"""The transport `adb`: devices that Android's debug bridge reaches, over USB or Wi-Fi, by a real adb server."""
