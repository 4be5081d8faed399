"""Any dataset -> typed records, and what is wrong with them. Imports nothing of the package but itself and what every module uses."""
